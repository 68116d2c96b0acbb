"""Backbones of both libraries through the whole chain: train, resume, export, load, fine-tune."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train
from downstream import detect, segment
from pixpro import load_backbone
from pixpro.checkpoints import checkpoint
from pixpro.checkpoints.checkpoint import checksum
from pixpro.checkpoints.export import export
from pixpro.config import parse_args
from pixpro.method.encoder import Encoder
from pixpro.method.timm_models import MAPS, is_timm
from pixpro.method.trunks import Pyramid
from pixpro.scenes import write_scenes
from tests.helpers.pictures import folder

ROOT = Path(__file__).parents[2]
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
STEPS = 3
ADAMW = ("--optimizer", "adamw", "--lr_base", "0.0005")
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


def arguments(data: Path, output: Path, arch: str, *more: str) -> list[str]:
    small = "--hidden_dim 8 --dim 4 --image_size 64 --batch_size 4 --epochs 1 --warmup_epochs 0 --workers 0 --amp off"
    kept = "--log_every 1 --save_every 1steps --keep 3"
    places = ("--data", str(data), "--output_dir", str(output))
    return [*places, "--arch", arch, *small.split(), *kept.split(), *more]


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


def test_a_plan_of_a_run_knows_its_cells(data, tmp_path, capsys):
    pytest.importorskip("timm")
    argv = arguments(data, tmp_path / "none", "timm/regnetx_002", "--cells", "c4", "--plan")
    assert train.main(argv) == 0
    assert "of the 256 cell pairs" in capsys.readouterr().out  # (64 / 16) ** 4
    assert not (tmp_path / "none").exists()


def test_an_unlikely_pair_of_trunk_and_optimizer_is_warned_of(data, tmp_path, capsys):
    pytest.importorskip("timm")
    assert train.main(arguments(data, tmp_path / "a", "timm/convnext_atto", "--lr_base", "0.01")) == 0
    said = capsys.readouterr().out
    assert "warning: timm/convnext_atto normalises by LayerNorm" in said and "--optimizer adamw" in said
    assert train.main(arguments(data, tmp_path / "b", "timm/convnext_atto", *ADAMW)) == 0
    assert "warning: timm" not in capsys.readouterr().out


WITHOUT = """
import contextlib, importlib, io, json, sys
sys.modules["timm"] = sys.modules["huggingface_hub"] = None  # importing them raises ModuleNotFoundError
for program, argv in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = importlib.import_module(program).main(argv)
    print(json.dumps([code, said.getvalue()]))
"""


def test_without_timm_or_the_hubs_package_each_program_ends_in_one_line(data, scenes, tmp_path):
    arch = "timm/convnext_atto"
    own = ["--data", str(scenes), "--weights", "none", "--arch", arch, "--output-dir", str(tmp_path / "out")]
    splits = ["--train-split", "trainval", "--test-split", "test"]
    commands = [
        ("train", arguments(data, tmp_path / "out", arch)),
        ("train", arguments(data, tmp_path / "out", arch, "--init", "timm")),
        ("train", arguments(data, tmp_path / "out", "resnet18", "--init", "hf-hub:me/model")),
        ("pixpro.checkpoints.export", ["hf-hub:me/model", str(tmp_path / "out")]),
        ("downstream.detect", [*own, *splits, "--detector", "fpn"]),
        ("downstream.segment", [*own, *splits]),
        ("downstream.evaluate", ["hf-hub:me/model", "--images", str(data)]),
    ]
    words = [sys.executable, "-c", WITHOUT, json.dumps(commands)]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    no_timm = f"error: --arch {arch}: backbones named timm/... need the package timm: pip install -e .[timm]\n"
    no_hub = "error: hf-hub:me/model needs the package huggingface_hub: pip install -e .[timm]\n"
    found = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("[")]
    assert found == [[2, line] for line in (no_timm, no_timm, no_hub, no_hub, no_timm, no_timm, no_hub)]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arch", "more", "said"),
    [
        ("timm/vit_tiny_patch16_224", (), "gives maps of stride 16; a pyramid of strides 4, 8, 16 and 32 is needed"),
        ("resnet18", ("--drop_path", "0.1"), "drop path is for backbones of timm"),
        ("resnet18", ("--init", "timm"), "--init timm is for --arch timm/NAME"),
        ("timm/convnext_atto", ("--init", "imagenet"), "use --init timm"),
    ],
)
def test_settings_that_cannot_be_are_one_line(data, tmp_path, capsys, arch, more, said):
    pytest.importorskip("timm")
    assert train.main(arguments(data, tmp_path / "out", arch, *more)) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_cells_is_short_for_a_neck_and_its_level(capsys):
    assert parse_args(["--cells", "c4"]) == parse_args(["--neck", "stage", "--levels", "4"])
    assert parse_args(["--cells=c2", "--dim", "8"]) == parse_args(["--neck", "stage", "--levels", "2", "--dim", "8"])
    assert parse_args(["--recipe", "small", "--cells", "c5"]).neck == "none"
    for argv, said in (
        (["--cells", "c9"], "c2, c3, c4, c5"),
        (["--cells"], "c2, c3"),
        (["--cells=c3", "--neck", "fpn"], "short"),
    ):
        with pytest.raises(SystemExit) as end:
            parse_args(argv)
        error = capsys.readouterr().err
        assert end.value.code == 2 and said in error and error.startswith("error: ") and error.count("\n") == 1
