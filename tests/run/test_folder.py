"""Where a run is written: one folder for a method however long it trains, and a demo that starts over."""

import json
import os
from functools import partial
from pathlib import Path

import pytest

from pixpro import config
from pixpro.checkpoints.folder import RunFolder
from pixpro.config import parse_args, settle
from pixpro.errors import UserError
from tests.helpers.runs import Run, arguments, pictures, rows


def folder_with_checkpoints(path: Path, demo: bool) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"demo": demo}))
    for name in ("last.pth.tar", "last-1.pth.tar", "0009.pth.tar"):
        (path / name).write_bytes(b"")
    return path


def test_a_run_with_more_epochs_finds_the_folder_of_the_shorter_one(monkeypatch, tmp_path):
    folders = {settle(parse_args(["--data", "photos", "--epochs", epochs])).output_dir for epochs in ("100", "200")}
    assert folders == {"output/pixpro_resnet50"}
    assert settle(parse_args(["--data", "photos", "--loss", "pixcontrast"])).output_dir not in folders
    monkeypatch.setattr(config, "sample_scenes", lambda: tmp_path)
    assert settle(parse_args(["--demo", "--epochs", "3"])).output_dir == settle(parse_args(["--demo"])).output_dir


def test_a_longer_run_goes_on_where_the_shorter_one_ended(tmp_path):
    data = pictures(tmp_path / "images")
    for epochs in ("1", "2"):
        argv = arguments(data, tmp_path, "--epochs", epochs, "--resume", "auto", "--output_dir", "")
        run = Run(argv, partial(os.chdir, tmp_path))
        assert run.wait() == [0], run.text()
    assert "going on after step 4 of 8" in run.text() and "epochs 1 -> 2" in run.text()
    assert [step for step, *_ in rows(tmp_path / "output" / "pixpro_resnet18")] == list(range(1, 9))


def test_a_demo_takes_the_place_of_an_earlier_demo(tmp_path):
    path = folder_with_checkpoints(tmp_path / "run", demo=True)
    RunFolder(path, fresh=True, again=True)
    assert not list(path.glob("*.pth.tar"))


def test_a_demo_that_goes_on_keeps_its_checkpoints(tmp_path):
    path = folder_with_checkpoints(tmp_path / "run", demo=True)
    RunFolder(path, fresh=False, again=True)
    assert len(list(path.glob("*.pth.tar"))) == 3


@pytest.mark.parametrize(("demo", "again"), [(False, True), (True, False)])
def test_no_run_takes_the_place_of_another_kind(tmp_path, demo, again):
    path = folder_with_checkpoints(tmp_path / "run", demo=demo)
    with pytest.raises(UserError, match="--resume auto"):
        RunFolder(path, fresh=True, again=again)
    assert len(list(path.glob("*.pth.tar"))) == 3
