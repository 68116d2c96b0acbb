"""Backbones of both libraries through the whole chain: train, resume, export, load, fine-tune."""

import json
import math
from pathlib import Path

import pytest
import torch

import train
from downstream import detect, segment
from pixpro import load_backbone
from pixpro.checkpoints import checkpoint
from pixpro.checkpoints.checkpoint import checksum
from pixpro.checkpoints.export import export
from pixpro.method.encoder import Encoder
from pixpro.method.timm_models import MAPS, is_timm
from pixpro.method.trunks import Pyramid
from pixpro.scenes import write_scenes
from tests.helpers.backbone_runs import ADAMW, STEPS, arguments
from tests.helpers.pictures import folder

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
RUNS = {  # architecture -> its further options
    "resnet18": ("--cells", "c4", "--instance_weight", "1"),
    "timm/resnet18": (),
    "timm/convnext_atto": (*ADAMW, "--drop_path", "0.2", "--neck", "fpn", "--levels", "4", "5"),
    "timm/regnetx_002": ("--cells", "c4"),
    "timm/mobilenetv4_conv_small": ("--instance_weight", "1"),
    "timm/swin_tiny_patch4_window7_224": (*ADAMW, "--drop_path", "0.1"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return folder(tmp_path_factory.mktemp("data") / "images", 4 * STEPS)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes", 8)


@pytest.fixture(
    scope="module", params=[pytest.param(arch, marks=pytest.mark.soak if "swin" in arch else ()) for arch in RUNS]
)
def trained(request, data, tmp_path_factory) -> tuple[str, Path, list[str]]:
    """The architecture, the output of a run of three steps, and its command line."""
    if is_timm(request.param):
        pytest.importorskip("timm")
    output = tmp_path_factory.mktemp("whole") / "run"
    argv = arguments(data, output, request.param, *RUNS[request.param])
    assert train.main(argv) == 0
    return request.param, output, argv


def learned(path: Path) -> str:
    """A fingerprint of all that training changes."""
    state = checkpoint.load(path)
    return checksum({name: state[name] for name in ("model", "optimizer", "step", "epoch")})


def earliest(output: Path) -> Path:
    """The state of the first step that was kept: a save waits for none before it, and leaves one out instead."""
    return min(output.glob("last*.pth.tar"), key=lambda path: checkpoint.load(path)["step"])


def test_a_run_moves_its_trunk_and_names_its_library(trained):
    arch, output, _ = trained
    first, last = (checkpoint.load(path) for path in (earliest(output), output / "last.pth.tar"))
    assert first["step"] < last["step"] == STEPS
    trunk = [n for n, t in first["model"].items() if n.startswith("encoder.") and not torch.equal(t, last["model"][n])]
    assert len(trunk) > 20
    assert last["config"]["arch"] == arch
    library = "timm" if is_timm(arch) else "torchvision"
    assert last["libraries"] == {"torch": torch.__version__, library: __import__(library).__version__}


def test_a_run_that_is_resumed_is_the_run_that_was_not_stopped(trained, tmp_path):
    _, output, argv = trained
    again = [*argv, "--resume", str(earliest(output)), "--output_dir", str(tmp_path / "again")]
    assert train.main(again) == 0
    assert learned(tmp_path / "again" / "last.pth.tar") == learned(output / "last.pth.tar")


@pytest.fixture(scope="module")
def features(trained) -> dict[str, torch.Tensor]:
    """The maps of the checkpoint's own online encoder."""
    arch, output, _ = trained
    encoder = Encoder(arch, hidden_dim=8, dim=4)  # without a neck: all four maps
    state = checkpoint.load(output / "last.pth.tar")["model"]
    own = {n.removeprefix("encoder."): t for n, t in state.items() if n.startswith("encoder.")}
    heads = ("neck.", "projector.", "instance_projector.")
    result = encoder.load_state_dict({n: t for n, t in own.items() if not n.startswith(heads)}, strict=False)
    assert not [name for name in result.missing_keys if not name.startswith(heads)] and not result.unexpected_keys
    with torch.no_grad():
        return encoder.eval().features(IMAGES)


@torch.no_grad()
def assert_same_features(model: torch.nn.Module, features: dict[str, torch.Tensor]) -> None:
    found = Pyramid(model).eval()(IMAGES)
    assert all(torch.equal(found[name], features[name]) for name in MAPS)


@pytest.mark.parametrize("format", ["checkpoint", "timm", "safetensors", "folder"])
def test_what_is_exported_and_loaded_again_has_the_checkpoints_features(trained, features, tmp_path, format):
    arch, output, _ = trained
    path = output / "last.pth.tar"
    if format != "checkpoint":
        path = export(path, tmp_path / "out", format)
    assert_same_features(load_backbone(path), features)
    assert_same_features(load_backbone(path, arch), features)


def test_timm_itself_loads_the_file_and_the_folder(trained, features, tmp_path):
    timm = pytest.importorskip("timm")
    arch, output, _ = trained
    name = arch.removeprefix("timm/")
    file = export(output / "last.pth.tar", tmp_path / "out.pth", "timm")
    out = export(output / "last.pth.tar", tmp_path / "out", "folder")
    exact = {"rtol": 0, "atol": 0}
    close = exact if is_timm(arch) else {"rtol": 1e-4, "atol": 1e-5}  # a network of that name, but timm's own code
    any_size = {"strict_img_size": False} if "swin" in name else {}
    models = [
        timm.create_model(name, num_classes=0, checkpoint_path=str(file), **any_size),
        timm.create_model(f"local-dir:{out}", pretrained=True, **any_size),
        timm.create_model(f"local-dir:{out}", pretrained=True, num_classes=5, **any_size),
    ]
    for model in models:
        with torch.no_grad():
            found = Pyramid(model).eval()(IMAGES)
        for level in MAPS:
            torch.testing.assert_close(found[level], features[level], **close)


def test_segmentation_fine_tunes_it(trained, scenes, tmp_path):
    _, output, _ = trained
    small = "--batch-size 2 --scale 0.000016 --crop 64 --num-classes 9 --workers 0 --log-every 1 --pictures 1"
    splits = "--train-split trainval --test-split test"
    argv = [*small.split(), *splits.split(), "--weights", str(output / "last.pth.tar"), "--data", str(scenes)]
    assert segment.main([*argv, "--output-dir", str(tmp_path / "fcn")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "fcn" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) > 1 and all(row["loss_pixels"] > 0 for row in rows)
    before, after = (checkpoint.load(p)["model"] for p in (output / "last.pth.tar", tmp_path / "fcn" / "last.pth.tar"))
    assert len(after) and before.keys().isdisjoint(after)  # the network's own names


def test_detection_fine_tunes_it(trained, scenes, tmp_path):
    _, output, _ = trained
    small = "--detector fpn --batch-size 2 --iterations 2 --train-sizes 64 --test-size 64 --regions 8 --precise-bn 1"
    more = "--train-split trainval --test-split test --test-proposals 5 --workers 0 --log-every 1 --pictures 1"
    argv = [*small.split(), *more.split(), "--weights", str(output / "last.pth.tar"), "--data", str(scenes)]
    assert detect.main([*argv, "--output-dir", str(tmp_path / "fpn")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "fpn" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and all(math.isfinite(row["loss"]) for row in rows)
    assert 0 <= json.loads((tmp_path / "fpn" / "results.json").read_text())["scores"]["AP50"] <= 100
    assert (tmp_path / "fpn" / "last.pth.tar").is_file()
