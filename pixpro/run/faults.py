"""A process that died or hangs -> the end of all, within a stated time, with the culprit named."""

import threading
import time
from collections.abc import Callable

import torch.distributed as dist

from pixpro.training.distributed import Process
from pixpro.training.endings import Abandoned

POLL = 1.0  # seconds between two looks
ANSWERS = 4.0  # seconds in which a living process answers a roll-call


class Watchdog:
    """A thread that ends this process when it has made no progress for `timeout` seconds; open it as a context.

    doing: what this process is at, in words; progress is when this changes. Time in which the process was suspended
    does not count. end: called with what `roll_call` found; must not return.
    """

    def __init__(
        self, process: Process, timeout: float, doing: Callable[[], str], end: Callable[[Abandoned], None]
    ) -> None:
        self.process, self.timeout, self.doing, self.end = process, timeout, doing, end
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
        idle, was = 0.0, ""
        while not self._closed.wait(POLL):
            idle, was = (idle + POLL if self.doing() == was else 0.0), self.doing()
            try:
                answer_roll_call(self.process, was)
            except RuntimeError:  # the store is gone with its process; the next collective says so
                continue
            if idle >= self.timeout:
                self.end(roll_call(self.process, was, f"no step was finished for {idle:.0f} s"))


def answer_roll_call(process: Process, doing: str) -> None:
    """Say that this process lives, if another one has asked."""
    if process.store.check(["roll/call"]) and not process.store.check([f"roll/{process.rank}"]):
        process.store.set(f"roll/{process.rank}", doing)


def roll_call(process: Process, doing: str, symptom: str) -> Abandoned:
    """Ask who is there; returns the end of the run with the likely culprit in its text."""
    others = f"process(es) of the group ended or hang ({symptom}); go on with --resume auto"
    try:
        process.store.set("roll/call", "")
        process.store.set(f"roll/{process.rank}", doing)
        time.sleep(ANSWERS)
        answers = {
            rank: process.store.get(f"roll/{rank}").decode()
            for rank in range(process.world_size)
            if process.store.check([f"roll/{rank}"])
        }
    except RuntimeError:
        return Abandoned(f"process 0 or its machine is gone, other {others}")
    silent = [str(rank) for rank in range(process.world_size) if rank not in answers]
    if silent:
        return Abandoned(f"process(es) {', '.join(silent)} do not answer: dead or suspended; {others}")
    reading = [f"{rank} ({answer})" for rank, answer in answers.items() if "images" in answer]
    if reading:
        return Abandoned(f"waiting for images: process(es) {', '.join(reading)}; {others}")
    return Abandoned(f"all processes answer but wait for each other: is the network between them up? {others}")


def of_communication(error: RuntimeError) -> bool:
    """Whether an error comes from talking to the other processes."""
    words = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "TCPStore")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)
