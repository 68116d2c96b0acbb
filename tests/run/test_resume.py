"""A run that is stopped anywhere and resumed is the run that was never stopped, to the last bit."""

import gc
import json
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest

from pixpro.checkpoints import checkpoint
from pixpro.training.engine import Trainer
from tests.helpers.runs import EPOCHS, IMAGES, STEPS, Run, arguments, rows, weights
from tests.helpers.sabotage import die_after_the_last_save, die_before_step, die_while_saving, flip_a_bit


def resumed(data: Path, output: Path, *more: str, ranks: int = 1) -> str:
    run = Run(arguments(data, output, "--resume", "auto", *more), ranks=ranks)
    assert run.wait() == [0] * ranks, run.text()
    return run.text()


def assert_same(output: Path, whole: Path) -> None:
    assert weights(output) == weights(whole)
    assert rows(output) == rows(whole)
    assert [step for step, *_ in rows(output)] == list(range(1, STEPS + 1))
    assert not list(output.glob(".*.partial"))


def test_the_whole_run_moved_and_kept_what_it_should(whole):
    assert len({loss for _, loss, _ in rows(whole)}) == STEPS
    assert checkpoint.load(whole / "last.pth.tar")["step"] == STEPS
    assert checkpoint.load(whole / "last-1.pth.tar")["step"] == STEPS - 2
    names = sorted(path.name for path in whole.glob("*.pth.tar"))
    assert names == ["0002.pth.tar", "0003.pth.tar", "last-1.pth.tar", "last.pth.tar"]
    assert checkpoint.load(whole / "0002.pth.tar")["step"] == STEPS * 2 // EPOCHS
    assert checkpoint.load(whole / "0002.pth.tar")["epoch"] == 2


@pytest.mark.parametrize("number", [3, 8])  # in the middle of an epoch, and at the beginning of one
def test_a_run_killed_in_a_step_is_resumed_exactly(data, whole, tmp_path, number):
    run = Run(arguments(data, tmp_path), partial(die_before_step, number, saved=True))
    assert run.wait() == [-signal.SIGKILL]
    assert 0 < checkpoint.load(tmp_path / "last.pth.tar")["step"] <= number
    resumed(data, tmp_path)
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("moment", ["half a file", "before the renames", "between the renames"])
def test_a_run_killed_while_it_saves_is_resumed_exactly(data, whole, tmp_path, moment):
    run = Run(arguments(data, tmp_path), partial(die_while_saving, moment, 2))
    assert run.wait() == [-signal.SIGKILL]
    assert checkpoint.load_newest(tmp_path, pytest.fail)[1]["step"] > 0
    resumed(data, tmp_path)
    assert_same(tmp_path, whole)


def test_one_epoch_and_a_resume_and_one_epoch_equal_two(data, whole, tmp_path):
    copy = tmp_path / "elsewhere.pth.tar"
    shutil.copy(whole / "0002.pth.tar", copy)
    run = Run(arguments(data, tmp_path / "run", "--resume", str(copy)))
    assert run.wait() == [0], run.text()
    assert weights(tmp_path / "run") == weights(whole)
    assert rows(tmp_path / "run") == rows(whole)[-STEPS // EPOCHS :]


def test_other_workers_and_ranks_go_on_with_the_same_images(data, whole, tmp_path):
    for name, more, ranks in (("workers", ("--workers", "2"), 1), ("ranks", (), 2)):
        shutil.copytree(whole, tmp_path / name, ignore=shutil.ignore_patterns("last*", "0003*", ".lock"))
        resumed(data, tmp_path / name, *more, ranks=ranks)
        if ranks == 1:
            assert_same(tmp_path / name, whole)
        else:  # sums over two processes round differently
            assert rows(tmp_path / name)[: STEPS - 4] == rows(whole)[: STEPS - 4]
            losses, expected = ([loss for _, loss, _ in rows(path)[-4:]] for path in (tmp_path / name, whole))
            assert losses == pytest.approx(expected, rel=1e-3)


def refused(data: Path, output: Path, *more: str) -> str:
    """The one line with which a resumed run is refused."""
    run = Run(arguments(data, output, "--resume", "auto", *more))
    assert run.wait() == [2] and run.text().count("\n") == 1, run.text()
    return run.text()


def test_a_renamed_image_is_noticed_because_it_shifts_the_others(data, whole, tmp_path):
    output = shutil.copytree(whole, tmp_path / "run", ignore=shutil.ignore_patterns(".lock"))
    other = shutil.copytree(data, tmp_path / "images")
    (other / "001.jpg").rename(other / "099.jpg")
    assert f"was trained on {IMAGES} images, this run found {IMAGES}, under other names" in refused(other, output)
    (other / "099.jpg").rename(other / "001.jpg")
    resumed(other, output)


def test_weight_decay_and_momentum_on_resume_are_those_of_the_command_line(data, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run", ignore=shutil.ignore_patterns("last*", "0003*", ".lock"))
    resumed(data, tmp_path / "run", "--weight_decay", "0.5", "--momentum", "0")
    groups = checkpoint.load(tmp_path / "run" / "last.pth.tar")["optimizer"]["param_groups"]
    assert [(group["weight_decay"], group["momentum"]) for group in groups] == [(0.5, 0.0), (0.0, 0.0)]


def test_a_finished_run_is_left_as_it_is(data, whole, tmp_path):
    output = shutil.copytree(whole, tmp_path / "run")
    resumed(data, output)
    assert_same(output, whole)
    assert (output / "last.pth.tar").stat().st_mtime_ns == (whole / "last.pth.tar").stat().st_mtime_ns


def test_a_damaged_checkpoint_is_passed_over_and_never_takes_a_good_ones_place(data, whole, tmp_path):
    output = shutil.copytree(whole, tmp_path / "run", ignore=shutil.ignore_patterns("0003*", ".lock"))
    flip_a_bit(output / "last.pth.tar")
    log = resumed(data, output)
    assert "warning: " in log and "going on from" in log and "last-1.pth.tar" in log
    assert_same(output, whole)
    assert checkpoint.load(output / "last-1.pth.tar")["step"] == STEPS - 2


def test_the_last_measurement_survives_a_kill_between_it_and_the_last_save(data, whole, tmp_path):
    more = ("--val_data", str(data))
    run = Run(arguments(data, tmp_path, *more), die_after_the_last_save)
    assert run.wait() == [-signal.SIGKILL]
    for _ in range(2):  # the second time there is nothing left to do
        resumed(data, tmp_path, *more)
        lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in lines if "matching" in row] == [0, STEPS]
    assert weights(tmp_path) == weights(whole)


def test_a_state_beyond_the_epochs_asked_for_is_left_under_its_own_name(data, whole, tmp_path):
    shutil.copy(whole / "0002.pth.tar", tmp_path / "last.pth.tar")
    log = resumed(data, tmp_path, "--epochs", "1")
    assert f"the state is of step 8, beyond the {STEPS // EPOCHS} steps of 1 epochs" in log
    assert [path.name for path in tmp_path.glob("*.pth.tar")] == ["last.pth.tar"]
    assert checkpoint.load(tmp_path / "last.pth.tar")["step"] == 8


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_loaded_checkpoint_does_not_stay_in_memory(data, whole, tmp_path, ranks):
    output = shutil.copytree(whole, tmp_path / "run", ignore=shutil.ignore_patterns("last*", "0003*", ".lock"))
    run = Run(arguments(data, output, "--resume", "auto"), look_for_a_checkpoint, ranks=ranks)
    assert run.wait() == [0] * ranks, run.text()


def look_for_a_checkpoint() -> None:
    """Fail in the first step if a training state, as it comes from a file, is in memory."""
    step, steps = Trainer.step, iter(range(1000))

    def watched(self, micro_batches, present):
        if next(steps) == 0:
            held = [o for o in gc.get_objects() if type(o) is dict and {"model", "optimizer", "config"} <= o.keys()]
            assert not held
        return step(self, micro_batches, present)

    Trainer.step = watched
