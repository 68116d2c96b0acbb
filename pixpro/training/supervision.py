"""The processes of one machine as their parent sees them: started, signalled, and ended together when one fails."""

import multiprocessing.connection
import os
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from types import FrameType

from pixpro.training.endings import SIGNALS, Abandoned, Stopped, end_at_once

GRACE = 10.0  # seconds between the end of a failed process and that of the others


def supervise(processes: Sequence[BaseProcess]) -> int:
    """Start processes and wait for them; returns 0, or the exit code of the first that failed.

    Signals that ask for an end are passed on, and a second SIGINT ends all at once. When a process fails, it is named
    and the others have GRACE seconds to notice and end, then they are killed. One that a signal ended counts as
    Abandoned.
    """
    interrupts = 0

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        alive = [process for process in processes if process.is_alive()]
        for process in alive:
            # A terminal sends SIGINT to all of us; a second one from here would end them at once.
            process.kill() if interrupts > 1 else os.kill(process.pid, signal.SIGTERM)
        if interrupts > 1:
            end_at_once()

    for process in processes:
        process.start()
    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        return wait_for(processes)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for(processes: Sequence[BaseProcess]) -> int:
    """Wait until all have ended, or GRACE seconds longer than the first failure; returns the exit code of all."""
    running = dict(enumerate(processes))
    result, deadline = 0, None
    while running and (deadline is None or time.monotonic() < deadline):
        patience = None if deadline is None else max(0.0, deadline - time.monotonic())
        ended = multiprocessing.connection.wait([process.sentinel for process in running.values()], patience)
        for rank in [rank for rank, process in running.items() if process.sentinel in ended]:
            process = running.pop(rank)
            process.join()  # the sentinel comes a moment before the exit code
            code = process.exitcode
            if code and deadline is None:
                if code != Stopped.exit_code:  # then the others stop too, and one of them is saving
                    deadline = time.monotonic() + GRACE
                    say_why(rank, code)
                result = code if code > 0 else Abandoned.exit_code
    return result


def say_why(rank: int, code: int) -> None:
    """Name a process that was ended from outside; one that ended by itself has said why."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (most often: memory was full)" if name == "SIGKILL" else ""
        print(
            f"error: process {rank} was ended by {name}{hint}; the others end too, go on with --resume auto",
            file=sys.stderr,
            flush=True,
        )
