"""Settings that choose a backbone: what is planned, unlikely, not installed or impossible is said in a line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import train
from pixpro.config import parse_args
from pixpro.scenes import write_scenes
from tests.helpers.backbone_runs import ADAMW, STEPS, arguments
from tests.helpers.pictures import folder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return folder(tmp_path_factory.mktemp("data") / "images", 4 * STEPS)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes", 8)


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
