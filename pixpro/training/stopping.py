"""Requests to stop, from a scheduler, a keyboard or a terminal that goes away -> a wish of this process."""

import os
import signal
from types import FrameType

from pixpro.training.processes import Process


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
