"""Reading detectron2's weight files: other people's are recognised by what is in them, and none runs code."""

import os
import pickle

import numpy as np
import pytest

from downstream.conversion.weights_file import read_weights, write_weights
from pixpro.errors import UserError

FACTS = {
    "arch": "wide_resnet50_2",
    "pixel_format": "RGB",
    "pixel_mean": [1.0, 2.0, 3.0],
    "pixel_std": [4.0, 5.0, 6.0],
    "stride_in_1x1": False,
    "fpn_channels": 0,
}


class Malicious:
    """Creates a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def pickled(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def caffe2_weights(blocks, width=64):
    """The names of a Caffe2 ResNet, as in MSRA's files, with tiny arrays where the shape does not matter."""
    names = ["conv1_w", "res_conv1_bn_s", "fc1000_w"]
    for stage, count in zip((2, 3, 4, 5), blocks, strict=True):
        names += [f"res{stage}_{index}_branch2{part}_w" for index in range(count) for part in "abc"]
    weights = {name: np.zeros(1, np.float32) for name in names}
    return weights | {"res2_0_branch2b_w": np.zeros((width, 64, 3, 3), np.float32)}


def test_a_file_says_which_config_its_weights_need(tmp_path):
    write_weights(tmp_path / "a.pkl", {"stem.conv1.weight": np.ones(3, np.float32)}, FACTS)
    assert read_weights(tmp_path / "a.pkl").expected == {
        "MODEL.RESNETS.DEPTH": 50,
        "MODEL.RESNETS.NUM_GROUPS": 1,
        "MODEL.RESNETS.WIDTH_PER_GROUP": 128,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 256,
        "INPUT.FORMAT": "RGB",
        "MODEL.PIXEL_MEAN": (1.0, 2.0, 3.0),
        "MODEL.PIXEL_STD": (4.0, 5.0, 6.0),
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
    }


@pytest.mark.parametrize("fact", FACTS)
def test_a_file_that_lacks_a_fact_is_refused(tmp_path, fact):
    facts = {key: value for key, value in FACTS.items() if key != fact}
    write_weights(tmp_path / "a.pkl", {"stem.conv1.weight": np.ones(3, np.float32)}, facts)
    with pytest.raises(UserError, match=fact):
        read_weights(tmp_path / "a.pkl")


@pytest.mark.parametrize(("blocks", "depth"), [((3, 4, 6, 3), 50), ((3, 4, 23, 3), 101)])
@pytest.mark.parametrize("wrapped", [False, True])
def test_msra_weights_are_recognised_by_their_names(tmp_path, blocks, depth, wrapped):
    weights = caffe2_weights(blocks)
    # As written by Python 2, which these files were: protocol 2.
    expected = read_weights(
        pickled(tmp_path / "R.pkl", {"blobs": weights} if wrapped else weights, protocol=2)
    ).expected
    assert expected["MODEL.RESNETS.DEPTH"] == depth
    assert expected["INPUT.FORMAT"] == "BGR" and expected["MODEL.RESNETS.STRIDE_IN_1X1"] is True
    assert expected["MODEL.PIXEL_MEAN"] == (103.53, 116.28, 123.675) and expected["MODEL.PIXEL_STD"] == (1.0, 1.0, 1.0)


def test_weights_of_unknown_settings_are_refused(tmp_path):
    resnext = caffe2_weights((3, 4, 23, 3), width=256)
    official = {"model": {"stem.conv1.weight": np.zeros(1, np.float32)}, "__author__": "PixPro"}
    for name, content in (("X-101.pkl", resnext), ("pixpro.pkl", official)):
        with pytest.raises(UserError, match="does not say how its weights expect images"):
            read_weights(pickled(tmp_path / name, content))


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path):
    content = {"model": {"stem.conv1.weight": Malicious(tmp_path / "ran")}, "__author__": "pixpro"}
    with pytest.raises(UserError, match="mkdir"):
        read_weights(pickled(tmp_path / "a.pkl", content))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [[], {}, {"model": {}}, {"model": {"a": np.array([None])}}, {"model": {"a": [1.0]}}, {"model": 3}],
    ids=["list", "empty", "no arrays", "objects", "lists", "number"],
)
def test_other_contents_are_refused(tmp_path, content):
    with pytest.raises(UserError, match="expected a dict of arrays|not a dict"):
        read_weights(pickled(tmp_path / "a.pkl", content))


def test_damaged_files_are_refused_wherever_they_are_cut(tmp_path):
    path = tmp_path / "a.pkl"
    write_weights(path, {"stem.conv1.weight": np.ones(3, np.float32)}, FACTS)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="not a weight file"):
            read_weights(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="a.pkl: No such file"):
        read_weights(tmp_path / "a.pkl")
