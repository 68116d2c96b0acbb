"""Requests to stop: the step is finished, the state saved, the exit code says so, and nothing is lost or repeated."""

import os
import signal
import subprocess
from functools import partial

import pytest

from pixpro.checkpoints import checkpoint
from pixpro.errors import Stopped
from tests.helpers.runs import ROOT, STEPS, Run, arguments, rows, weights
from tests.helpers.sabotage import signal_in_step

SAVE_LATE = ("--save_every", "1000steps", "--keep_every", "1000")


def test_each_signal_ends_the_run_after_its_step(data, whole, tmp_path):
    """One run, stopped by SIGTERM in step 2, by SIGUSR1 in step 5, by SIGINT in step 9, equals an undisturbed one."""
    for number, name in ((1, "SIGTERM"), (4, "SIGUSR1"), (8, "SIGINT")):
        command = arguments(data, tmp_path, *SAVE_LATE, "--resume", "auto")
        run = Run(command, partial(signal_in_step, number, name))
        assert run.wait() == [Stopped.exit_code] == [75]
        assert f"stopped by {name}, saved after step {number + 1}; go on with --resume auto\n" in run.text()
        assert "Traceback" not in run.text() and "error" not in run.text()
        assert checkpoint.load(tmp_path / "last.pth.tar")["step"] == number + 1
        assert rows(tmp_path) == rows(whole)[: number + 1]
    run = Run(arguments(data, tmp_path, *SAVE_LATE, "--resume", "auto"))
    assert run.wait() == [0], run.text()
    assert (weights(tmp_path), rows(tmp_path)) == (weights(whole), rows(whole))


def test_a_second_interrupt_ends_the_run_at_once(data, tmp_path):
    run = Run(arguments(data, tmp_path, *SAVE_LATE), partial(signal_in_step, 4, "SIGINT", times=2))
    assert run.wait() == [-signal.SIGINT]
    assert not list(tmp_path.glob("*.pth.tar"))


def test_a_request_in_the_last_step_changes_nothing(data, whole, tmp_path):
    run = Run(arguments(data, tmp_path), partial(signal_in_step, STEPS - 1, "SIGTERM"))
    assert run.wait() == [0], run.text()
    assert weights(tmp_path) == weights(whole)


def test_two_processes_stop_after_the_same_step_whichever_is_asked(data, tmp_path):
    for number, rank in ((2, 1), (6, 0)):
        command = arguments(data, tmp_path, *SAVE_LATE, "--resume", "auto")
        run = Run(command, partial(signal_one, number, rank), ranks=2)
        assert run.wait() == [75, 75], run.text(0) + run.text(1)
        done = checkpoint.load(tmp_path / "last.pth.tar")["step"]
        assert done in (number + 1, number + 2)  # the store is looked at once per step
        assert [step for step, *_ in rows(tmp_path)] == list(range(1, done + 1))
        said = (run.text(0) + run.text(1)).count(f"stopped by SIGTERM, saved after step {done}")
        assert said == 1


def signal_one(number: int, rank: int) -> None:
    """Signal one of several processes in a step."""
    if int(os.environ["RANK"]) == rank:
        signal_in_step(number, "SIGTERM")


@pytest.mark.parametrize(
    ("ending", "code", "requeued"),
    [
        ("exit 0", 0, False),
        ("exit 75", 75, True),
        ("exit 69", 69, True),
        ("exit 71", 71, True),
        ("exit 2", 2, False),
        ("exit 70", 70, False),
        ("kill -TERM $PPID; exit 75", 75, False),  # cancelled
    ],
)
def test_the_slurm_script_puts_a_stopped_job_back_and_no_other(tmp_path, ending, code, requeued):
    programs = {
        "srun": f'echo "$@" >> "{tmp_path}/launched"\n{ending}',
        "scontrol": f'[ "$1" = show ] && echo node7 || echo "$@" >> "{tmp_path}/put back"',
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_NTASKS": "16",
        "SLURM_SUBMIT_DIR": str(ROOT),
    }
    environment = {**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["bash", str(ROOT / "slurm" / "pretrain.sh"), "--epochs", "7"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "train.py --resume auto --epochs 7" in (tmp_path / "launched").read_text()
    assert (tmp_path / "put back").exists() == requeued
    if requeued:
        assert (tmp_path / "put back").read_text() == "requeue 42\n"
    assert result.returncode == (0 if requeued else code), result.stderr
