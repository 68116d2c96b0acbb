"""detectron2 weight files (.pkl): written, and read without running code, with the settings their weights need."""

import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from downstream.conversion.names import SHAPES, Shape
from pixpro.errors import UserError

# How weights expect images, on detectron2's scale of 0..255: those of torchvision and this project, and MSRA's.
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
RGB = {"pixel_format": "RGB", "pixel_mean": MEAN, "pixel_std": STD, "stride_in_1x1": False}
MSRA = {"pixel_format": "BGR", "pixel_mean": MEAN[::-1], "pixel_std": [1.0, 1.0, 1.0], "stride_in_1x1": True}

# Everything that an array, a number or a dict needs; no other global may be named by a file.
ALLOWED = {
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}


class WeightsFile(NamedTuple):
    """What a weight file holds, and what a config must say for its weights to mean what they meant."""

    path: Path
    weights: dict[str, np.ndarray]
    writer: str
    expected: dict[str, Any]  # detectron2 config key -> value
    facts: dict[str, Any]  # arch, method, epoch, sha256 of the checkpoint, ...; empty for other people's files


class ArraysOnly(pickle.Unpickler):
    """Unpickles arrays and plain types and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not an array")
        return super().find_class(module, name)


def write_weights(path: Path, weights: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
    """Write what detectron2's loader takes, and the facts beside it."""
    content = {"model": weights, "__author__": "pixpro", "matching_heuristics": True, **facts}
    with open(path, "wb") as file:
        pickle.dump(content, file, protocol=4)
        file.flush()
        os.fsync(file.fileno())


def read_weights(path: Path) -> WeightsFile:
    """The file's arrays and the settings they need.

    Knows files of convert-pretrain-to-detectron2.py, detectron2's torchvision conversions and the Caffe2 weights of
    MSRA (`R-50.pkl`, `R-101.pkl`). Raises UserError for anything else: its settings could only be guessed.
    """
    try:
        with open(path, "rb") as file:
            content = ArraysOnly(file, encoding="latin1").load()
    except OSError as error:
        raise UserError(f"cannot read the weights {path}: {error.strerror}") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"{path} is not a weight file of detectron2: {error}; convert the checkpoint again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a weight file of detectron2: it holds a {type(content).__name__}, not a dict")
    weights = content.get("model", content.get("blobs", content))
    arrays = isinstance(weights, dict) and all(
        isinstance(array, np.ndarray) and array.dtype.kind in "fiu" for array in weights.values()
    )
    if not weights or not arrays:
        raise UserError(f"{path} holds no weights; expected a dict of arrays")
    writer = str(content.get("__author__", "Caffe2"))
    if writer == "pixpro":
        facts = {key: value for key, value in content.items() if key not in ("model", "matching_heuristics")}
        return WeightsFile(path, weights, writer, expected_settings(path, facts), facts)
    if writer == "Caffe2" and (expected := msra_settings(weights)):
        return WeightsFile(path, weights, "MSRA (Caffe2)", expected, {})
    if writer == "torchvision" and (depth := trunk_depth(weights, "res{}.{}.conv1.weight")):
        return WeightsFile(path, weights, writer, shape_settings(Shape(depth)) | image_settings(**RGB), {})
    raise UserError(
        f"{path} (written by {writer!r}) does not say how its weights expect images; "
        "convert the checkpoint that it was made from with convert-pretrain-to-detectron2.py"
    )


def expected_settings(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The config that a file of ours asks for."""
    try:
        expected = shape_settings(SHAPES[facts["arch"]]) | image_settings(**{name: facts[name] for name in RGB})
        if facts["fpn_channels"]:
            expected["MODEL.FPN.OUT_CHANNELS"] = facts["fpn_channels"]
        return expected
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} lacks {error} beside its weights; convert the checkpoint again") from error


def msra_settings(weights: dict[str, np.ndarray]) -> dict[str, Any] | None:
    """The config for MSRA's supervised weights, or None: Caffe2 names of a ResNet with plain bottlenecks.

    ResNeXt files carry the same names but other settings.
    """
    depth = trunk_depth(weights, "res{}_{}_branch2a_w")
    plain = "res2_0_branch2b_w" in weights and weights["res2_0_branch2b_w"].shape[:2] == (64, 64)
    if depth not in (50, 101) or not plain:
        return None
    return shape_settings(Shape(depth)) | image_settings(**MSRA)


def shape_settings(shape: Shape) -> dict[str, Any]:
    """The keys of MODEL.RESNETS that give a trunk its shapes."""
    return {
        "MODEL.RESNETS.DEPTH": shape.depth,
        "MODEL.RESNETS.NUM_GROUPS": shape.num_groups,
        "MODEL.RESNETS.WIDTH_PER_GROUP": shape.width_per_group,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": shape.res2_out_channels,
    }


def image_settings(
    *, pixel_format: str, pixel_mean: Sequence[float], pixel_std: Sequence[float], stride_in_1x1: bool
) -> dict[str, Any]:
    """The keys that say how a trunk sees images."""
    return {
        "INPUT.FORMAT": pixel_format,
        "MODEL.PIXEL_MEAN": tuple(pixel_mean),
        "MODEL.PIXEL_STD": tuple(pixel_std),
        "MODEL.RESNETS.STRIDE_IN_1X1": stride_in_1x1,
    }


def trunk_depth(weights: dict[str, np.ndarray], name: str) -> int | None:
    """50, 101 or 152 from the numbers of bottlenecks in res2 to res5, or None."""
    blocks = []
    for stage in (2, 3, 4, 5):
        index = 0
        while name.format(stage, index) in weights:
            index += 1
        blocks.append(index)
    return {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}.get(tuple(blocks))
