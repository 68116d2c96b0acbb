"""Requests to stop, from a scheduler or a keyboard -> one step after which all processes stop together."""

import os
import signal
from types import FrameType

from pixpro.training.distributed import Process
from pixpro.training.endings import SIGNALS, end_at_once


class StopRequest:
    """Listens, while it is open as a context, for SIGTERM, SIGINT and SIGUSR1; a second SIGINT ends at once.

    The loss of the parent that started this process as one of several counts as a request, too.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.reason = ""
        self._interrupts = 0
        self._parent = os.getppid() if process.store is not None else None
        self._asked = False

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            end_at_once()
        self.reason = signal.Signals(number).name

    def agreed(self, number: int) -> bool:
        """Whether all processes stop after global step `number`; each must ask after each of its steps.

        A process that was signalled says so in the store, the main one fixes the step, the others look. The main one
        has fixed it before it begins the next step, and no process ends that next step without it: gradients are
        reduced over all, and their norm is read on the host. So all see it in time, for one look per step.
        """
        if self._parent not in (None, os.getppid()):
            self.reason = "the end of the process that started it"
        store = self.process.store
        if store is None:
            return bool(self.reason)
        if self.reason and not self._asked:
            store.set("stop/reason", self.reason)
            self._asked = True
        if self.process.is_main and not store.check(["stop/after"]) and store.check(["stop/reason"]):
            store.set("stop/after", str(number + 1))
        if not store.check(["stop/after"]):
            return False
        self.reason = store.get("stop/reason").decode()
        return number >= int(store.get("stop/after"))
