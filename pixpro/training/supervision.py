"""Requests to stop -> a wish of a process; processes of one machine, signalled and ended together by their parent."""

import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from types import FrameType

from pixpro.errors import Abandoned
from pixpro.training.processes import Process

PATIENCE = 10.0  # seconds between the end of a failed process and that of others which are not at work of their own


def signals() -> list[signal.Signals]:
    """The signals that ask a run to save and stop. A SIGHUP that is ignored, as under nohup, stays ignored."""
    asking = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
    return asking if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [*asking, signal.SIGHUP]


def end_at_once() -> None:
    """End this process the way SIGINT does, whatever it is doing: shells report 130."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


class StopRequest:
    """Makes requests a process's wish while it is open as a context; a second SIGINT ends at once."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._interrupts = 0

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._receive) for number in signals()}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            end_at_once()
        self.process.wish = signal.Signals(number).name


def supervise(processes: Sequence[BaseProcess], observe: Callable[[], Process | None]) -> int:
    """Start processes and wait for them; returns 0, or the exit code of the first that failed.

    Signals that ask for an end are passed on, and a second SIGINT ends all at once. When a process fails, it is named
    and the others have time to notice and end; then those are killed that do not answer or wait for others, not one
    that is still saving. One that a signal ended counts as Abandoned. observe: makes a voice to call them with.
    """
    interrupts = 0

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        alive = [process for process in processes if process.is_alive()]
        for process in alive:
            # A terminal sends SIGINT to all of us; a second one from here would end them at once.
            assert process.pid is not None  # it is alive
            process.kill() if interrupts > 1 else os.kill(process.pid, signal.SIGTERM)
        if interrupts > 1:
            end_at_once()

    start_tracker()
    for process in processes:
        process.start()
    before = {number: signal.signal(number, pass_on) for number in signals()}
    try:
        return wait_for(processes, observe)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def start_tracker() -> None:
    """Start multiprocessing's own helper, which all share, so that a terminal that goes away does not end it first."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    multiprocessing.resource_tracker.ensure_running()
    signal.signal(signal.SIGHUP, before)


def wait_for(processes: Sequence[BaseProcess], observe: Callable[[], Process | None]) -> int:
    """Wait until all have ended, by themselves or because one has failed; returns the exit code of all."""
    running = dict(enumerate(processes))
    result, failed = 0, None
    while running:
        ended = multiprocessing.connection.wait([p.sentinel for p in running.values()], None if failed is None else 1.0)
        for rank in [rank for rank, process in running.items() if process.sentinel in ended]:
            process = running.pop(rank)
            process.join()  # the sentinel comes a moment before the exit code
            code = process.exitcode
            if code and failed is None:
                failed = time.monotonic()
                say_why(rank, code)
                result = code if code > 0 else Abandoned.exit_code
        if running and failed is not None and time.monotonic() - failed > PATIENCE:
            busy = at_work(observe)
            for rank in running.keys() - busy:
                running[rank].kill()
    return result


def at_work(observe: Callable[[], Process | None]) -> set[int]:
    """The processes that live and are at work of their own, such as saving."""
    try:
        voice = observe()
        return set() if voice is None else {rank for rank, answer in voice.call().items() if answer.alone}
    except (RuntimeError, OSError):
        return set()


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
