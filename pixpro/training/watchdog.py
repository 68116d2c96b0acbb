"""A process that died or hangs -> the end of all, within a stated time, with the culprit named."""

import contextlib
import os
import threading
from collections.abc import Callable

import torch.distributed as dist

from pixpro.errors import Abandoned
from pixpro.training.processes import Process

POLL = 1.0  # seconds between two looks
OWN_WORK = 60  # times `timeout`: how long a process that answers may be at work of its own, such as saving


class Watchdog:
    """A thread that ends this process when nothing has moved for `timeout` seconds; open it as a context.

    Time in which the process was suspended does not count, nor does waiting for one that is at work of its own. The
    loss of the parent counts as a request to stop. end: called with the end of the run; must not return.
    """

    def __init__(self, process: Process, timeout: float, end: Callable[[Abandoned], None]) -> None:
        self.process, self.timeout, self.end = process, timeout, end
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watchdog":
        if self.process.store is not None:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        process, moves, parent = self.process, -1, os.getppid()
        while not self._closed.wait(POLL):
            process.idle, moves = (process.idle + POLL if process.moves == moves else 0.0), process.moves
            with contextlib.suppress(RuntimeError):  # the store is gone with its process
                process.answer()
            if os.getppid() != parent:
                process.wish = process.wish or "the end of the process that started it"
            if process.idle >= self.timeout * (OWN_WORK if process.alone else 1):
                found = cause(process, f"nothing moved for {process.idle:.0f} s", self.timeout)
                if found and not self._closed.is_set():
                    self.end(found)
                moves = -1


def cause(process: Process, symptom: str, timeout: float) -> Abandoned | None:
    """Ask who is there; the end of the run with the likely culprit in its text, None if one is just at its own work."""
    others = f"process(es) of the group ended or hang ({symptom}); go on with --resume auto"
    try:
        answers = process.call()
    except RuntimeError:
        return Abandoned(f"process 0 or its machine is gone, other {others}")
    silent = [str(rank) for rank in range(process.world_size) if rank not in answers]
    if silent:
        return Abandoned(f"process(es) {', '.join(silent)} do not answer: dead or suspended; {others}")
    busy = [f"{rank} ({answer.doing})" for rank, answer in answers.items() if answer.alone]
    if busy:
        longest = max(answer.idle for answer in answers.values() if answer.alone)
        return (
            Abandoned(f"too long at it: process(es) {', '.join(busy)}; {others}")
            if longest >= OWN_WORK * timeout
            else None
        )
    reading = [
        f"{rank} ({answer.doing})" for rank, answer in answers.items() if answer.doing.startswith("reading the images")
    ]
    if reading:
        return Abandoned(f"waiting for images: process(es) {', '.join(reading)}; {others}")
    return Abandoned(f"all processes answer but wait for each other: is the network between them up? {others}")


def of_communication(error: RuntimeError) -> bool:
    """Whether an error comes from talking to the other processes."""
    words = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "TCPStore")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)
