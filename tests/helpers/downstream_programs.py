"""What the tests ask of detect.py and segment.py alike: a call, an interruption in mid-run, the line of a refusal."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pixpro.checkpoints.checkpoint import LAST
from pixpro.monitor.metrics import Metrics


def call(program: ModuleType, *words: object) -> int:
    """Run a program's command line in this process; its exit code."""
    return program.main([str(word) for word in words])


@contextlib.contextmanager
def interrupted_in_step(number: int) -> Iterator[None]:
    """A block whose training ends by Ctrl-C when it reports this step; it has to get there."""

    def write(self: Metrics, step: int, values: dict) -> None:
        if step == number:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Metrics, "write", write)
        yield


def refusal(capsys: pytest.CaptureFixture, run: Callable[..., int], *words: object) -> str:
    """The one line with which `run` refuses these words, with exit code 2."""
    capsys.readouterr()
    try:
        code = run(*words)
    except SystemExit as end:  # argparse's way
        code = end.code
    assert code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def state(folder: Path) -> dict:
    """The newest checkpoint of a run."""
    return torch.load(folder / LAST, weights_only=True)


def results(folder: Path) -> dict:
    """What a run left at its end: its scores, settings and recipe."""
    return json.loads((folder / "results.json").read_text())
