"""What goes wrong in mid-run: numbers, disks, folders, other processes. The run lives, or ends with its cause named."""

import json
import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch

from pixpro.checkpoints import checkpoint
from pixpro.errors import Abandoned, Diverged, MachineFailed
from pixpro.training.nonfinite import HIGHEST_SCALE, LOWEST_SCALE, Buffers, all_finite, limit_scale, loss_gradient
from tests.helpers.runs import STEPS, Run, arguments, pictures, rows, server, weights
from tests.helpers.sabotage import (
    kill_in_step,
    refuse_saves,
    rename_in_step,
    spoil_losses,
    stop_in_step,
)


def test_a_full_disk_in_mid_run_costs_warnings_and_no_result(data, whole, tmp_path):
    run = Run(arguments(data, tmp_path), partial(refuse_saves, 1, 3))
    assert run.wait() == [0], run.text()
    assert 1 <= run.text().count("CHECKPOINT NOT WRITTEN") <= 3 and "No space left on device" in run.text()
    assert (weights(tmp_path), rows(tmp_path)) == (weights(whole), rows(whole))


def test_an_output_folder_that_is_away_for_a_while_costs_warnings_and_no_row(data, whole, tmp_path):
    output = tmp_path / "run"
    run = Run(arguments(data, output), partial(rename_in_step, 3, str(output), str(tmp_path / "away"), back=9))
    assert run.wait() == [0], run.text()
    assert "NOT WRITTEN" in run.text() and "its rows wait in memory" in run.text()
    assert "Traceback" not in run.text()
    assert (weights(output), rows(output)) == (weights(whole), rows(whole))


def test_vanished_images_end_the_run_with_its_state_saved(data, whole, tmp_path):
    copy = pictures(tmp_path / "images")
    run = Run(arguments(copy, tmp_path / "run"), partial(rename_in_step, 5, str(copy), str(tmp_path / "gone")))
    assert run.wait() == [MachineFailed.exit_code] == [71], run.text()
    assert "is the data still there?" in run.text() and "the state after step 6 is saved" in run.text()
    assert "Traceback" not in run.text()
    assert checkpoint.load(tmp_path / "run" / "last.pth.tar")["step"] == 6
    (tmp_path / "gone").rename(copy)
    run = Run(arguments(copy, tmp_path / "run", "--resume", "auto"))
    assert run.wait() == [0], run.text()
    assert weights(tmp_path / "run") == weights(whole)


def test_a_bad_step_changes_nothing_and_its_images_are_named(data, tmp_path):
    run = Run(arguments(data, tmp_path, "--save_every", "1steps", "--keep", "99"), partial(spoil_losses, {4}))
    assert run.wait() == [0], run.text()
    states = [checkpoint.load(path) for path in checkpoint.newest_first(tmp_path)]  # a busy disk leaves some out
    steps = [state["step"] for state in states]
    assert steps[0] == STEPS and min(steps) <= 4 and 5 not in steps  # the state after step 5 is that of step 4
    of_step_4 = [state["model"] for state in states if state["step"] == 4]
    assert all(torch.equal(model[name], tensor) for model in of_step_4 for name, tensor in of_step_4[0].items())
    [row] = [json.loads(line) for line in (tmp_path / "skipped_steps.jsonl").read_text().splitlines()]
    assert (row["step"], row["rank"], row["loss"]) == (5, 0, "nan") and len(row["files"]) == 4
    assert all(Path(name).is_file() for name in row["files"])
    assert [step for step, loss, _ in rows(tmp_path) if loss is None] == [5]
    assert all(torch.isfinite(tensor).all() for state in states for tensor in state["model"].values())


def test_too_many_bad_steps_stop_both_processes_with_the_last_good_state(data, tmp_path):
    command = arguments(data, tmp_path, "--epochs", "5", "--save_every", "1000steps", "--keep_every", "99")
    run = Run(command, partial(spoil_losses, set(range(6, 20)), 1), ranks=2)
    assert run.wait() == [Diverged.exit_code] * 2 == [70, 70], run.text(0) + run.text(1)
    state = checkpoint.load(tmp_path / "last.pth.tar")
    assert state["step"] == 6
    assert all(torch.isfinite(tensor).all() for tensor in state["model"].values())
    skipped = [json.loads(line) for line in (tmp_path / "skipped_steps.jsonl").read_text().splitlines()]
    assert [(row["step"], row["rank"]) for row in skipped] == [(n, rank) for n in range(7, 17) for rank in (0, 1)]
    assert all(row["loss"] == "nan" for row in skipped if row["rank"] == 1)
    assert all(row["loss"] != "nan" for row in skipped if row["rank"] == 0)
    text = run.text(0) + run.text(1)
    assert text.count("the state after step 6 is saved") == 1 and "Traceback" not in text


def test_gradients_that_are_not_finite_are_found():
    good = [torch.ones(3), torch.zeros(2, 2)]
    assert all_finite(good)
    for value in (float("nan"), float("inf"), -float("inf")):
        assert not all_finite([*good, torch.tensor([0.0, value])])


def test_a_bad_loss_spoils_gradients_that_would_be_finite():
    for bad in (float("inf"), float("nan")):
        weight = torch.ones(2, requires_grad=True)
        loss = weight.sum() + bad
        loss.backward(loss_gradient(loss))
        assert torch.isnan(weight.grad).all()
    weight = torch.ones(2, requires_grad=True)
    (loss := weight.sum()).backward(loss_gradient(loss))
    assert torch.equal(weight.grad, torch.ones(2))


def test_statistics_come_back_after_a_bad_batch():
    norm = torch.nn.BatchNorm2d(2)
    norm(torch.randn(4, 2, 3, 3))
    kept, buffers = {name: tensor.clone() for name, tensor in norm.named_buffers()}, Buffers(norm.buffers())
    buffers.remember()
    norm(torch.full((4, 2, 3, 3), float("nan")))
    assert torch.isnan(norm.running_mean).all()
    buffers.restore()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in norm.named_buffers())


@pytest.mark.parametrize(("scale", "limited"), [(0.25, LOWEST_SCALE), (8.0, 8.0), (2.0**60, HIGHEST_SCALE)])
def test_the_scale_of_fp16_stays_between_its_limits(scale, limited):
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    scaler.scale(torch.ones(1))  # makes the scale a tensor
    limit_scale(scaler, torch.device("cpu"))
    assert scaler.get_scale() == limited


def test_the_death_of_a_process_ends_the_other_and_is_named(data, tmp_path):
    run = Run(arguments(data, tmp_path), partial(kill_in_step, 6, 1), ranks=2)
    assert run.wait() == [Abandoned.exit_code, -signal.SIGKILL]
    assert "error: process(es) 1 do not answer: dead or suspended" in run.text(0)
    assert "Traceback" not in run.text(0)
    resumed = Run(arguments(data, tmp_path, "--resume", "auto"), ranks=2)
    assert resumed.wait() == [0, 0], resumed.text()
    assert [step for step, *_ in rows(tmp_path)] == list(range(1, STEPS + 1))


def supervised(argv: list[str], log: str, prepare) -> None:
    """A machine's parent process with two training processes; its exit code is theirs."""
    from pixpro.training.distributed import observer
    from pixpro.training.supervision import supervise
    from tests.helpers import runs

    os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
    context, store = runs.server(), {"PIXPRO_RENDEZVOUS": f"file://{log}.store", "WORLD_SIZE": "2"}
    own = [store | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    processes = [context.Process(target=runs._main, args=(argv, log, own[rank], prepare)) for rank in range(2)]
    os._exit(supervise(processes, partial(observer, Path(f"{log}.store"), 2)))


@pytest.mark.parametrize(
    ("prepare", "cause", "timeout"),
    [
        (partial(kill_in_step, 6, 1), "error: process 1 was ended by SIGKILL", "10"),
        (partial(stop_in_step, 6, 0), "error: process(es) 0 do not answer: dead or suspended", "0.1"),
    ],
)
def test_the_parent_ends_all_with_the_cause_first(data, tmp_path, prepare, cause, timeout):
    log = tmp_path / "log"
    argv = arguments(data, tmp_path / "run", "--timeout", timeout)
    parent = server().Process(target=supervised, args=(argv, str(log), prepare))
    parent.start()
    parent.join(240)
    assert parent.exitcode == Abandoned.exit_code, log.read_text()
    errors = [line for line in log.read_text().splitlines() if line.startswith("error")]
    assert errors[0].startswith(cause), log.read_text()
