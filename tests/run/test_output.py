"""Standard output that nobody reads, that was closed, or whose disk is full: the run goes on, and nothing is lost."""

import os
import pty
import sys

import pytest

from tests.helpers.runs import STEPS, Run, arguments, rows, weights


def reader_ends() -> None:
    """As `train.py | head`."""
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)


def closed() -> None:
    """As `train.py >&-`."""
    os.close(1)
    sys.stdout = None


def all_closed() -> None:
    """As `train.py <&- >&- 2>&-`."""
    os.close(0)
    closed()
    os.close(2)
    sys.stderr = None


def terminal_goes_away() -> None:
    """As a window that is closed on a run under nohup."""
    master, terminal = pty.openpty()
    os.dup2(terminal, 1)
    os.dup2(terminal, 2)
    os.close(master)


def full_disk() -> None:
    """As `train.py > log` on a disk without space."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("fault", [reader_ends, closed, all_closed, terminal_goes_away, full_disk])
def test_output_that_nobody_reads_stops_no_run(data, whole, whole_of_two, tmp_path, fault, ranks):
    run = Run(arguments(data, tmp_path), fault, ranks=ranks)
    assert run.wait() == [0] * ranks, run.text()
    undisturbed = whole if ranks == 1 else whole_of_two
    assert (weights(tmp_path), rows(tmp_path)) == (weights(undisturbed), rows(undisturbed))
    assert [step for step, *_ in rows(tmp_path)] == list(range(1, STEPS + 1))
    assert "Traceback" not in run.text()
    assert run.text().count("standard output has no reader any more (Broken pipe)") == (fault is reader_ends)
