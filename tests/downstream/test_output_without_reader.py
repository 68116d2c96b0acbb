"""`detect.py | head` and its like: when nobody reads any more, the work goes on and its results are written."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from downstream import detect, evaluate, segment
from pixpro import PixPro
from pixpro.scenes import write_scenes

SAID = "standard output has no reader any more (Broken pipe)"
SHORT = "--arch resnet18 --weights none --batch-size 2 --iterations 2 --workers 0 --log-every 1 --pictures 0"
SPLITS = "--train-split trainval --test-split test"
DETECT = f"{SHORT} {SPLITS} --train-sizes 64 --test-size 64 --regions 8 --test-proposals 5 --precise-bn 1"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes", 8)


@contextlib.contextmanager
def nobody_reads() -> Iterator[None]:
    """A region in which standard output is a pipe whose reader has ended."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stream, contextlib.redirect_stdout(stream):
        yield


@pytest.mark.parametrize("program, words", [(detect, DETECT), (segment, f"{SHORT} {SPLITS} --crop 48")])
def test_a_run_goes_on_to_its_end(scenes: Path, tmp_path: Path, capsys, program, words: str):
    with nobody_reads():
        assert program.main(["--data", str(scenes), *words.split(), "--output-dir", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["scores"]
    assert capsys.readouterr().err.count(SAID) == 1


def test_scores_are_written(scenes: Path, tmp_path: Path, capsys):
    torch.save({"model": PixPro("resnet18", hidden_dim=8, dim=4).state_dict()}, tmp_path / "last.pth.tar")
    words = [tmp_path / "last.pth.tar", "--images", scenes / "held_out", "--output", tmp_path / "scores.json"]
    with nobody_reads():
        assert evaluate.main([*map(str, words), "--seeds", "1", "--image-size", "64"]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert capsys.readouterr().err.count(SAID) == 1
