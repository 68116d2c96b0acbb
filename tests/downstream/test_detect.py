"""detect.py as a program: it trains, resumes exactly, tests on several processes, and refuses what is wrong."""

import argparse
import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet18

from downstream import detect
from downstream.common.program import load_trunk
from downstream.common.training import Learner, save
from pixpro.checkpoints.checkpoint import LAST
from pixpro.errors import UserError
from pixpro.scenes.coco import write_coco
from pixpro.training.processes import Process
from tests.helpers.downstream_programs import call, interrupted_in_step, refusal, results, state

ROOT = Path(__file__).parents[2]
SMALL = "--arch resnet18 --batch-size 2 --scale 0.00002 --train-sizes 64 80 --test-size 64 --regions 8 --workers 0"
SMALL += " --test-proposals 5 --precise-bn 2 --log-every 1 --pictures 1"  # 4 iterations
SMALL += " --train-split trainval --test-split test --weights none"


@pytest.fixture
def program(scenes: Path) -> Callable[..., int]:
    """Runs detect.py in this process with small settings on the sample scenes, plus the given options."""
    return partial(call, detect, "--data", scenes, *SMALL.split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> tuple[Path, str]:
    """A folder with a finished run of 4 iterations, and what was printed."""
    folder, printed = tmp_path_factory.mktemp("finished") / "run", io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert call(detect, "--data", scenes, *SMALL.split(), "--output-dir", folder) == 0
    return folder, printed.getvalue()


def assert_equal(first: object, second: object) -> None:
    """Nested states with bit-equal tensors."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, list):
        for a, b in zip(first, second, strict=True):
            assert_equal(a, b)
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second


def test_a_run_leaves_results_pictures_curves_and_a_table(finished: tuple[Path, str], scenes: Path):
    folder, out = finished
    assert "linear rule: batch 16 -> 2, learning rate 0.02 -> 0.0025, iterations 24000 -> 4" in out
    assert "PixPro, 400 epochs" in out and "none, test, 4 iterations of 2" in out
    assert ["60.2", "83.8", "67.7"] in [line.split()[-3:] for line in out.splitlines()]
    assert "not to be compared" in out
    found = results(folder)
    assert {"AP", "AP50", "AP75"} <= found["scores"].keys() and found["recipe"]["iterations"] == 4
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4] and rows[0]["loss_classifier"] > 0
    assert list((folder).glob("events.out.tfevents.*"))
    (picture,) = (folder / "pictures").iterdir()
    with Image.open(picture) as drawn, Image.open(scenes / "JPEGImages" / f"{picture.stem}.jpg") as original:
        assert drawn.size == original.size


def test_an_interrupted_run_resumes_to_the_same_bits(program, finished, tmp_path: Path):
    with interrupted_in_step(3):
        program("--output-dir", tmp_path / "parts", "--save-every", 2)
    assert state(tmp_path / "parts")["step"] == 2
    program("--output-dir", tmp_path / "parts", "--resume", "auto")
    whole, parts = state(finished[0]), state(tmp_path / "parts")
    assert_equal(whole["model"], parts["model"])
    assert_equal(whole["optimizer"], parts["optimizer"])
    assert results(finished[0])["scores"] == results(tmp_path / "parts")["scores"]


def test_two_processes_train_one_model_which_one_process_scores_alike(program, tmp_path: Path):
    short = ("--output-dir", tmp_path / "run", "--scale", 0.00001)
    assert program(*short, "--nproc", 2) == 0
    together = results(tmp_path / "run")["scores"]
    assert state(tmp_path / "run")["step"] == 2
    assert program(*short, "--resume", "auto") == 0
    assert results(tmp_path / "run")["scores"] == together


def test_coco_layout_is_scored_with_coco_ap(program, tmp_path: Path, scenes: Path, capsys):
    pytest.importorskip("pycocotools")
    coco = write_coco(scenes, tmp_path / "coco")
    splits = ("--train-split", "train2017", "--test-split", "val2017")
    program("--data", coco, "--layout", "coco", *splits, "--scale", 0.000003, "--output-dir", tmp_path / "run")
    assert "has no masks" in capsys.readouterr().out
    assert "APs" in results(tmp_path / "run")["scores"]


def test_the_trunk_comes_from_the_checkpoint(tmp_path: Path):
    trunk = resnet18()
    torch.save(trunk.state_dict(), tmp_path / "weights.pth")
    loaded = load_trunk(str(tmp_path / "weights.pth"), None)
    assert torch.equal(loaded.layer4[1].conv2.weight, trunk.layer4[1].conv2.weight)


def bad_inputs() -> list:
    """(options, what the message says)"""
    return [
        (["--data", "nowhere"], "no folder nowhere"),
        (["--train-split", "nosplit"], "nosplit.txt"),
        (["--weights", "nothing.pth"], "no checkpoint nothing.pth"),
        (["--weights", __file__], "test_detect.py"),
        (["--batch-size", "3", "--nproc", "2"], "cannot be shared by 2"),
        (["--layout", "coco"], "instances_trainval.json"),
        (["--resume", "nothing.pth.tar"], "no checkpoint at nothing.pth.tar"),
        (["--amp", "fp16"], "--amp fp16 needs a GPU"),
        (["--batch-size", "0"], "above zero"),
        (["--scale", "nan"], "above zero"),
        (["--seed", "-1"], "between 0 and"),
        (["--arch", "vgg16"], "invalid choice"),
    ]


@pytest.mark.parametrize(("options", "message"), bad_inputs())
def test_wrong_input_is_one_line_code_2_and_nothing_written(program, tmp_path, capsys, options, message):
    assert message in refusal(capsys, program, "--output-dir", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_overwritten_nor_resumed_with_other_settings(program, finished, capsys):
    before = (finished[0] / LAST).read_bytes()
    for options, message in (((), "holds a run already"), (("--resume", "auto", "--seed", 5), "--seed 0")):
        assert message in refusal(capsys, program, "--output-dir", finished[0], *options)
    assert (finished[0] / LAST).read_bytes() == before


def test_a_checkpoint_that_cannot_be_written_is_one_clear_line(tmp_path: Path):
    net = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=1)
    nowhere = argparse.Namespace(output_dir=tmp_path / "gone")
    with pytest.raises(UserError, match="cannot be written") as error:
        learner = Learner(net, optimizer, torch.amp.GradScaler("cpu", enabled=False))
        save(nowhere, learner, 1, Process(0, 1, 1, torch.device("cpu")))
    assert "\n" not in str(error.value)


def test_it_starts_from_its_own_folder_with_nothing_installed():
    command = [sys.executable, "-I", "detect.py", "--help"]
    shown = subprocess.run(command, cwd=ROOT / "downstream", capture_output=True, text=True)
    assert shown.returncode == 0 and "--test-split" in shown.stdout, shown.stderr
