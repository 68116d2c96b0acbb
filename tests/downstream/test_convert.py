"""The converter for detectron2 writes the whole trunk and nothing else, or says in one line why it cannot."""

import argparse
import os
import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from downstream.conversion.names import SHAPES, trunk_name
from downstream.conversion.weights_file import read_weights
from pixpro.errors import UserError
from pixpro.method.encoder import Encoder
from pixpro.method.trunks import ARCHS
from tests.helpers.trunks import state_dict_of, write_checkpoint

DOWNSTREAM = Path(__file__).resolve().parents[2] / "downstream"


@pytest.fixture(scope="module")
def small():
    """resnet18's state dict."""
    return state_dict_of("resnet18")


def test_what_detectron2_cannot_hold_is_one_line_that_names_the_programs_that_can(tmp_path):
    pytest.importorskip("timm")
    torch.manual_seed(0)
    state = {f"encoder.{name}": tensor for name, tensor in Encoder("timm/regnetx_002", 8, 4).state_dict().items()}
    torch.save({"model": state, "config": {"arch": "timm/regnetx_002"}}, tmp_path / "last.pth.tar")
    command = [sys.executable, "convert-pretrain-to-detectron2.py", tmp_path / "last.pth.tar", tmp_path / "out.pkl"]
    result = subprocess.run(command, cwd=DOWNSTREAM, capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and not (tmp_path / "out.pkl").exists()
    assert all(word in result.stderr for word in ("timm/regnetx_002", "resnet50", "detect.py", "segment.py"))


def run_converter(capsys, monkeypatch, *arguments):
    """Exit code and output of the converter, run in this process."""
    monkeypatch.setattr(sys, "argv", ["convert-pretrain-to-detectron2.py", *map(str, arguments)])
    code = 0
    try:
        runpy.run_path(str(DOWNSTREAM / "convert-pretrain-to-detectron2.py"), run_name="__main__")
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


def rename_by_replacing(key):
    """The renaming as users of other projects know it: a chain of replacements on the whole key."""
    if "layer" not in key:
        key = "stem." + key
    for stage in (1, 2, 3, 4):
        key = key.replace(f"layer{stage}", f"res{stage + 1}")
    for number in (1, 2, 3):
        key = key.replace(f"bn{number}", f"conv{number}.norm")
    return key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


@pytest.mark.parametrize("arch", ARCHS)
def test_every_tensor_of_every_backbone_gets_its_detectron2_name(arch):
    with torch.device("meta"):
        keys = [key for key in torchvision.models.get_model(arch).state_dict() if not key.startswith("fc.")]
    names = [trunk_name(key) for key in keys]
    assert names == [rename_by_replacing(key) for key in keys]
    assert len(set(names)) == len(keys)
    assert arch in SHAPES


@pytest.mark.parametrize(
    "key", ["fc.weight", "layer5.0.conv1.weight", "layer1.0.conv4.weight", "projector.bn1.bias", ""]
)
def test_a_name_outside_the_trunk_is_refused(key):
    with pytest.raises(UserError, match="not a name of a torchvision ResNet"):
        trunk_name(key)


def test_the_command_converts_from_its_own_folder_and_leaves_heads_out(tmp_path, small):
    checkpoint, out = write_checkpoint(tmp_path / "last.pth.tar", small), tmp_path / "out.pkl"
    # As users start it: in a process of its own, with nothing on Python's path.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "convert-pretrain-to-detectron2.py", str(checkpoint), str(out)]
    ran = subprocess.run(command, cwd=DOWNSTREAM, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert "encoder.projector (9)" in ran.stdout and "momentum_encoder" in ran.stdout and "verified" in ran.stdout
    with open(out, "rb") as file:
        content = pickle.load(file)
    assert content["matching_heuristics"] is True and isinstance(content["__author__"], str)
    assert (content["arch"], content["epoch"], content["method"]) == ("resnet18", 3, "pixpro")
    assert content["pixel_format"] == "RGB" and content["stride_in_1x1"] is False
    assert content["pixel_mean"] == [123.675, 116.28, 103.53] and content["pixel_std"] == [58.395, 57.12, 57.375]
    trunk = {
        key.removeprefix("encoder."): value.numpy()
        for key, value in small.items()
        if key.startswith(("encoder.conv1", "encoder.bn1", "encoder.layer"))
    }
    assert content["model"].keys() == {rename_by_replacing(key) for key in trunk}
    for key, array in trunk.items():
        converted = content["model"][rename_by_replacing(key)]
        assert converted.dtype == array.dtype and np.array_equal(converted, array)


def test_the_official_layout_with_its_pickled_namespace_converts(tmp_path, small, capsys, monkeypatch):
    model = {f"module.{key}": value for key, value in small.items() if key.startswith(("encoder.conv1", "encoder.bn1"))}
    model |= {f"module.{key}": value for key, value in small.items() if key.startswith("encoder.layer")}
    model |= {"module.projector.linear1.weight": torch.zeros(4, 512, 1, 1)}
    model |= {f"module.encoder_k.{key.removeprefix('module.encoder.')}": value + 1 for key, value in model.items()}
    torch.save({"model": model, "opt": argparse.Namespace(arch="resnet18"), "epoch": 100}, tmp_path / "official.pth")
    code, _, said = run_converter(capsys, monkeypatch, tmp_path / "official.pth", tmp_path / "out.pkl")
    assert code == 0, said
    stem = read_weights(tmp_path / "out.pkl").weights["stem.conv1.weight"]
    assert np.array_equal(stem, small["encoder.conv1.weight"].numpy())


@pytest.mark.parametrize("damage", ["no backbone", "half a backbone", "not finite", "foreign", "no file", "no folder"])
def test_what_cannot_be_converted_ends_with_one_line_and_code_2_and_writes_nothing(
    tmp_path, small, damage, capsys, monkeypatch
):
    checkpoint, folder = tmp_path / "checkpoint.pth", tmp_path / "out"
    folder.mkdir()
    (folder / "kept.pkl").write_bytes(b"as it was")
    damaged = dict(small)
    if damage == "no backbone":
        damaged = {key: value for key, value in small.items() if "layer" not in key and ".conv1" not in key}
        damaged = {key: value for key, value in damaged.items() if not key.startswith("encoder.bn1")}
    elif damage == "half a backbone":
        del damaged["encoder.layer4.1.conv2.weight"]
    elif damage == "not finite":
        damaged["encoder.layer2.0.bn1.bias"] = torch.full((128,), float("nan"))
    elif damage == "foreign":
        damaged = {"transformer.h.0.attn.weight": torch.zeros(4, 4)}
    if damage != "no file":
        write_checkpoint(checkpoint, damaged)
    target = tmp_path / "nowhere" / "kept.pkl" if damage == "no folder" else folder / "kept.pkl"
    code, printed, said = run_converter(capsys, monkeypatch, checkpoint, target)
    assert code == 2, printed
    assert said.startswith("error: ") and said.count("\n") == 1
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("kept.pkl", b"as it was")]
