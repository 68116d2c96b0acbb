"""Several processes know the same and end together: whatever one of them meets, all end with its line, saved."""

import json
import os
import signal
import tempfile
from functools import partial
from pathlib import Path

import pytest

from pixpro.checkpoints import checkpoint
from pixpro.errors import Abandoned, Diverged, MachineFailed, UserError
from tests.helpers.elastic import free_port
from tests.helpers.runs import STEPS, Run, arguments, rows, server
from tests.helpers.sabotage import (
    all_of,
    draw_slowly,
    fail_in_reading,
    kill_a_worker_in_step,
    kill_in_step,
    of_rank,
    signal_in_step,
    spoil_losses,
    write_slowly,
)

SAVE_LATE = ("--save_every", "1000steps", "--keep_every", "1000")


def both(run: Run) -> str:
    return run.text(0) + run.text(1)


@pytest.mark.parametrize("rank", [0, 1])
def test_wrong_input_that_one_process_meets_ends_all_with_its_line_and_a_saved_state(data, tmp_path, rank):
    run = Run(
        arguments(data, tmp_path, *SAVE_LATE),
        partial(fail_in_reading, 5, rank, UserError("too many bad files")),
        ranks=2,
    )
    assert run.wait() == [2, 2], both(run)
    line = "error: too many bad files; the state after step 5 is saved, go on with --resume auto\n"
    assert both(run).count(line) == 1 and both(run).count("error") == 1
    assert checkpoint.load(tmp_path / "last.pth.tar")["step"] == 5
    assert [step for step, *_ in rows(tmp_path)] == [1, 2, 3, 4, 5]


def test_an_error_of_ours_in_one_process_ends_the_other_with_a_saved_state(data, tmp_path):
    run = Run(arguments(data, tmp_path, *SAVE_LATE), partial(fail_in_reading, 5, 1, KeyError("oops")), ranks=2)
    assert run.wait() == [Abandoned.exit_code, 1], both(run)
    assert "error: process 1 failed (KeyError: 'oops'), see its traceback; the state after step 5 is saved" in run.text(
        0
    )
    assert "Traceback" in run.text(1) and "Traceback" not in run.text(0)
    assert checkpoint.load(tmp_path / "last.pth.tar")["step"] == 5


def wrong_interval(rank: int) -> None:
    """Give one process a --save_every that is none."""
    if of_rank(rank):
        import train

        read = train.parse_args
        train.parse_args = lambda argv: read([*argv, "--save_every", "5"])


@pytest.mark.parametrize("rank", [0, 1])
def test_a_wrong_command_line_of_one_process_alone_ends_all_with_its_line(data, tmp_path, rank):
    run = Run(arguments(data, tmp_path / "run"), partial(wrong_interval, rank), ranks=2)
    assert run.wait() == [2, 2], both(run)
    assert both(run).count("error: ") == 1 and "interval '5': expected a number with its unit" in run.text(0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_data_worker_that_dies_is_not_wrong_input(data, tmp_path, ranks):
    command = arguments(data, tmp_path, *SAVE_LATE, "--workers", "1")
    run = Run(command, partial(kill_a_worker_in_step, 5, ranks - 1), ranks=ranks)
    assert run.wait() == [MachineFailed.exit_code] * ranks == [71] * ranks, run.text()
    done = checkpoint.load(tmp_path / "last.pth.tar")["step"]
    assert 6 <= done < STEPS  # batches that were ready when the worker died are used
    assert "error: a data worker died" in run.text() and f"the state after step {done} is saved" in run.text()


def test_slow_work_of_the_main_process_is_not_taken_for_death(data, tmp_path):
    """Pictures and a save that take more than twice the timeout of 6 s each."""
    slow = partial(all_of, partial(draw_slowly, 13), partial(write_slowly, 13))
    command = arguments(data, tmp_path, "--timeout", "0.1", "--epochs", "1", "--save_every", "1000steps")
    run = Run(command, slow, ranks=2)
    assert run.wait() == [0, 0], both(run)
    assert checkpoint.load(tmp_path / "last.pth.tar")["step"] == STEPS // 3


def leave_no_room_for_sockets() -> None:
    """Give the processes a folder for temporary files whose name is too long."""
    tempfile.tempdir = tempfile.mkdtemp(prefix="long" * 20)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_temporary_folder_too_deep_for_workers_is_one_line_before_the_first_step(data, tmp_path, ranks):
    run = Run(arguments(data, tmp_path / "run", "--workers", "1"), leave_no_room_for_sockets, ranks=ranks)
    assert run.wait() == [2] * ranks, run.text()
    text = "".join(run.text(rank) for rank in range(ranks))
    assert text.count("error: ") == 1 and "set TMPDIR to a shorter one" in text and "Traceback" not in text


def fail_to_compile(rank: int) -> None:
    """Let the compiler work in all processes but one."""
    from pixpro.training import compiling

    compiling.compile_encoders = lambda *args, agree, **options: agree(
        "compiler", "CppError: no compiler" if of_rank(rank) else ""
    )


def test_a_failure_to_compile_in_one_process_is_known_to_all(data, tmp_path):
    command = arguments(data, tmp_path, "--epochs", "1", "--compile")
    run = Run(command, partial(fail_to_compile, 1), ranks=2)
    assert run.wait() == [0, 0], both(run)
    assert "encoders run uncompiled, which is slower and equally right: CppError: no compiler" in run.text(0)


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


def under_a_parent(argv: list[str], log: Path, prepare) -> int:
    """The exit code of two processes under one parent."""
    parent = server().Process(target=supervised, args=(argv, str(log), prepare))
    parent.start()
    parent.join(240)
    return parent.exitcode


def test_a_diverged_run_is_saved_however_long_that_takes(data, tmp_path):
    log = tmp_path / "log"
    command = arguments(data, tmp_path / "run", "--epochs", "5", *SAVE_LATE)
    spoiled = partial(all_of, partial(spoil_losses, set(range(6, 20)), 1), partial(write_slowly, 14))
    assert under_a_parent(command, log, spoiled) == Diverged.exit_code, log.read_text()
    assert checkpoint.load(tmp_path / "run" / "last.pth.tar")["step"] == 6
    assert log.read_text().count("the state after step 6 is saved") == 1


def test_a_parent_lets_a_process_save_whose_fellow_was_killed(data, tmp_path):
    """Process 1 dies at the beginning of step 9, while the main one is writing the state after step 8 for 14 s."""
    log = tmp_path / "log"
    command = arguments(data, tmp_path / "run", "--save_every", "1000steps", "--keep_every", "2")
    broken = partial(all_of, partial(kill_in_step, 8, 1), partial(write_slowly, 14))
    assert under_a_parent(command, log, broken) == Abandoned.exit_code, log.read_text()
    assert checkpoint.load(tmp_path / "run" / "0002.pth.tar")["step"] == 8
    assert "error: process 1 was ended by SIGKILL" in log.read_text()


def test_processes_of_a_cluster_end_together_when_the_one_that_keeps_the_store_dies(data, tmp_path):
    """As under SLURM: the main process keeps the store, and takes it with it."""
    meeting = {"PIXPRO_RENDEZVOUS": "env://", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    run = Run(arguments(data, tmp_path), partial(kill_in_step, 6, 0), ranks=2, **meeting)
    assert run.wait() == [-signal.SIGKILL, Abandoned.exit_code], both(run)
    assert "error: process 0 or its machine is gone, other process(es) of the group ended or hang" in run.text(1)
    meeting["MASTER_PORT"] = str(free_port())
    resumed = Run(arguments(data, tmp_path, "--resume", "auto"), ranks=2, **meeting)
    assert resumed.wait() == [0, 0], both(resumed)
    assert [step for step, *_ in rows(tmp_path)] == list(range(1, STEPS + 1))


def test_a_terminal_that_goes_away_is_a_request_to_stop(data, tmp_path):
    for ranks, number in ((1, 2), (2, 6)):
        command = arguments(data, tmp_path, *SAVE_LATE, "--resume", "auto")
        run = Run(command, partial(hang_up, number, ranks - 1), ranks=ranks)
        assert run.wait() == [75] * ranks, run.text()
        assert f"stopped by SIGHUP, saved after step {number + 1}; go on with --resume auto\n" in run.text()
        assert checkpoint.load(tmp_path / "last.pth.tar")["step"] == number + 1


def hang_up(number: int, rank: int) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever the tests themselves run under
    if of_rank(rank):
        signal_in_step(number, "SIGHUP")


def hang_up_under_nohup(number: int) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal_in_step(number, "SIGHUP")


def test_a_terminal_that_goes_away_does_not_stop_a_run_under_nohup(data, tmp_path):
    run = Run(arguments(data, tmp_path, "--epochs", "1"), partial(hang_up_under_nohup, 1))
    assert run.wait() == [0], run.text()


def test_rows_of_metrics_are_whole_after_all_this(data, tmp_path):
    run = Run(arguments(data, tmp_path, *SAVE_LATE), partial(fail_in_reading, 5, 1, UserError("stop")), ranks=2)
    assert run.wait() == [2, 2]
    resumed = Run(arguments(data, tmp_path, *SAVE_LATE, "--resume", "auto"), ranks=2)
    assert resumed.wait() == [0, 0], both(resumed)
    whole = Run(arguments(data, tmp_path / "whole", *SAVE_LATE), ranks=2)
    assert whole.wait() == [0, 0]
    assert rows(tmp_path) == rows(tmp_path / "whole")
    assert json.loads((tmp_path / "config.json").read_text())["resume"] == "auto"
