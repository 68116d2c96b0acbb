"""Wrong input to train.py: one line that says what was found and expected, exit code 2, and nothing written."""

import contextlib
import io
import math
import tempfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import train
from pixpro.config import Config, parse_args
from tests.helpers.pictures import folder
from tests.helpers.runs import Run, arguments, pictures


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return folder(tmp_path_factory.mktemp("data") / "images", 5)


def refused(argv: list[str], output: Path) -> str:
    """The one line that train.py prints on stderr."""
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        try:
            code = train.main([*argv, "--output_dir", str(output)])
        except SystemExit as end:
            code = end.code
    text = error.getvalue()
    assert code == 2 and text.startswith("error: ") and text.count("\n") == 1 and text.endswith("\n"), text
    assert text[:-1].isprintable()
    assert not output.exists()
    return text


SMALL = ["--arch", "resnet18", "--hidden_dim", "8", "--dim", "8", "--image_size", "32", "--workers", "0"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--batch_size", "8"], ["8", "larger than the data set of 5"]),
        (["--batch_size", "5", "--accumulation", "2"], ["5", "multiple of 2"]),
        (["--batch_size", "4", "--resume", "missing.pth.tar"], ["missing.pth.tar", "expected"]),
        (["--batch_size", "4", "--save_every", "5"], ["'5'", "10min"]),
        (["--batch_size", "4", "--image_size", "4096"], ["4096", "32 to 1024"]),
        (["--batch_size", "0"], ["--batch_size", "'0'"]),
        (["--epochs", "two"], ["--epochs", "'two'"]),
        (["--lr_base", "nan"], ["--lr_base", "'nan'"]),
        (["--loss", "simclr"], ["simclr", "pixpro", "pixcontrast"]),
        (["--losss", "pixpro"], ["--losss"]),
        (["--arch", "vgg16"], ["vgg16", "resnet50"]),
        (["--batch_size", "1"], ["--batch_size", "one crop of 32 pixels", "no variance"]),
        (["--batch_size", "4", "--accumulation", "4"], ["--batch_size", "one crop of 32 pixels", "no variance"]),
    ],
)
def test_a_wrong_value_is_one_line(data, tmp_path, more, words):
    text = refused([*SMALL, "--data", str(data), *more], tmp_path / "output")
    assert all(word in text for word in words), text


def test_held_out_images_that_give_batchnorm_one_value_are_one_line(data, tmp_path):
    alone = folder(tmp_path / "alone", 1)
    text = refused([*SMALL, "--data", str(data), "--batch_size", "4", "--val_data", str(alone)], tmp_path / "output")
    assert "one crop of 32 pixels" in text and "no variance" in text


def test_a_temporary_folder_too_deep_for_workers_is_one_line(data, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("deep" * 20)))
    text = refused([*SMALL, "--data", str(data), "--batch_size", "4", "--workers", "1"], tmp_path / "output")
    assert "TMPDIR" in text and "--workers 0" in text


def test_missing_and_empty_folders_are_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text\n\x1b[2J").mkdir()
    (tmp_path / "text\n\x1b[2J" / "a.txt").write_text("no image")
    for name in ("missing", "empty", "text\n\x1b[2J"):
        refused([*SMALL, "--data", str(tmp_path / name)], tmp_path / "output")


def test_an_output_folder_that_cannot_be_is_one_line(data, tmp_path):
    (tmp_path / "file").write_text("in the way")
    text = refused([*SMALL, "--data", str(data), "--batch_size", "4"], tmp_path / "file" / "output")
    assert "--output_dir" in text and "cannot be written to" in text


def test_damaged_and_foreign_checkpoints_are_one_line(data, tmp_path):
    (tmp_path / "damaged.pth.tar").write_bytes(b"PK\x03\x04 and no more")
    argv = [*SMALL, "--data", str(data), "--batch_size", "4", "--resume", str(tmp_path / "damaged.pth.tar")]
    assert "damaged.pth.tar" in refused(argv, tmp_path / "output")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, ["RANK", "'2'"]),
        ({"RANK": "x", "WORLD_SIZE": "2"}, ["RANK", "'x'"]),
        ({"RANK": "0", "WORLD_SIZE": "0"}, ["WORLD_SIZE", "'0'"]),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, ["MASTER_PORT", "torchrun"]),
    ],
)
def test_a_wrong_environment_is_one_line(data, tmp_path, monkeypatch, environment, words):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    text = refused([*SMALL, "--data", str(data), "--batch_size", "4"], tmp_path / "output")
    assert all(word in text for word in words), text


def test_a_port_in_use_is_one_line(data, tmp_path, monkeypatch):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, value)
        text = refused([*SMALL, "--data", str(data), "--batch_size", "4"], tmp_path / "output")
    assert f"port 127.0.0.1:{port} is in use" in text


def test_processes_with_different_settings_say_which(tmp_path):
    data = pictures(tmp_path / "images")
    run = Run(arguments(data, tmp_path / "run"), ranks=2, prepare=other_seed_on_the_second)
    assert run.wait() == [2, 2], run.text(0) + run.text(1)
    text = run.text(0) + run.text(1)
    assert text.count("error: ") == 1 and "process 1 has seed = 7, process 0 has 0" in text
    assert not (tmp_path / "run").exists()


def test_processes_with_different_images_say_so(tmp_path):
    data = pictures(tmp_path / "images")
    run = Run(arguments(data, tmp_path / "run"), ranks=2, prepare=partial(renamed_image_on_the_second, data))
    assert run.wait() == [2, 2], run.text(0) + run.text(1)
    text = run.text(0) + run.text(1)
    assert text.count("error: ") == 1 and "process 1 has images = 16 with names and sizes" in text
    assert not (tmp_path / "run").exists()


def renamed_image_on_the_second(data: Path) -> None:
    """Give the process of rank 1 a copy of the images in which one has another name."""
    import os
    import shutil

    if os.environ["RANK"] == "1":
        copy = shutil.copytree(data, data.with_name("copy"))
        (copy / "001.jpg").rename(copy / "099.jpg")
        read = train.parse_args
        train.parse_args = lambda argv: read([*argv, "--data", str(copy)])


def other_seed_on_the_second() -> None:
    """Give the process of rank 1 another seed."""
    import os

    if os.environ["RANK"] == "1":
        read = train.parse_args
        train.parse_args = lambda argv: read([*argv, "--seed", "7"])


def test_a_folder_takes_one_run_at_a_time_and_a_dead_one_leaves_it_free(tmp_path):
    data, output = pictures(tmp_path / "images"), tmp_path / "run"
    first = Run(arguments(data, output), prepare=wait_in_step_two)
    try:
        while "step 1/" not in first.text() and first.processes[0].is_alive():
            first.processes[0].join(0.05)
        (output / "skipped_steps.jsonl").write_text('{"step": 99}\n')  # which a second run would drop
        second = Run(arguments(data, output, "--resume", "auto"))
        assert second.wait() == [2], second.text()
        assert f"another run (process {first.processes[0].pid} on " in second.text()
        assert (output / "skipped_steps.jsonl").read_text() == '{"step": 99}\n'
    finally:
        first.processes[0].kill()
    assert first.wait() == [-9]
    third = Run(arguments(data, output, "--resume", "auto"))
    assert third.wait() == [0], third.text()


def wait_in_step_two() -> None:
    """Stand still in the second step."""
    import time

    from pixpro.training.engine import Trainer

    step = Trainer.step

    def waiting(self, micro_batches, present):
        if present == 1:
            time.sleep(600)
        return step(self, micro_batches, present)

    Trainer.step = waiting


NAMES = [name for name in vars(parse_args([])) if name not in ("demo",)]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.text(max_size=8) | st.integers().map(str) | st.floats().map(str))))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_command_line_is_a_sensible_configuration_or_one_line(pairs):
    argv, error = [text for name, value in pairs for text in (f"--{name}", value)], io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        try:
            config = parse_args(argv)
        except SystemExit as end:
            text = error.getvalue()
            assert end.code in (0, 2) and text.count("\n") <= 1 and text.rstrip("\n").isprintable()
            return
    assert isinstance(config, Config)
    numbers = [value for value in vars(config).values() if isinstance(value, float)]
    assert all(math.isfinite(number) for number in numbers)
