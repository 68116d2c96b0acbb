"""A contender, ready to take turns: in this process, or in one of its own."""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import multiprocessing
from torch._dynamo.exc import TorchDynamoException

from benchmarks.measuring.timing import elapsed
from benchmarks.steps.contenders import CONTENDERS, Case, Contender, Contestant
from benchmarks.steps.earlier import Earlier
from pixpro.training.machine import keep_freed_memory

Result = TypeVar("Result")


class Turn(NamedTuple):
    """What came of a turn: the seconds of a step, or why there was none."""

    seconds: float
    reason: str


def attempt(contender: Contender, action: Callable[[], Result]) -> tuple[Result | None, str]:
    """What the action gives; None, and why, where it cannot be done here."""
    try:
        return action(), ""
    except ImportError as error:
        if not contender.pip:
            raise
        return None, f"not installed ({error}): {contender.pip}"
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None, "out of memory"
    except TorchDynamoException as error:
        return None, f"does not compile: {error}"


def timed_step(contestant: Contestant, device: torch.device) -> float:
    """Seconds of one step; its gradients are freed afterwards, so that waiting contenders hold weights alone."""
    seconds = elapsed(contestant.run, device)
    contestant.model.zero_grad(set_to_none=True)
    return seconds


class Here:
    """A contender in this process: for GPUs, whose memory all processes share."""

    def __init__(self, name: str, case: Case) -> None:
        self.contender, self.device = CONTENDERS[name], case.device
        torch.manual_seed(0)
        self.built, self.reason = attempt(self.contender, lambda: self.contender.build(case))

    def turn(self) -> Turn:
        """Time one step; a contender that fails is given up."""
        seconds, reason = attempt(self.contender, lambda: timed_step(self.built, self.device))
        if reason:
            self.close()
        return Turn(float("nan") if reason else seconds, reason)

    def close(self) -> None:
        """Free what it holds."""
        self.built = None


class Apart:
    """A contender in a process of its own, so that on a CPU each has the allocator that its own script would have."""

    def __init__(self, name: str, case: Case) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(name, case, theirs))
        self.process.start()
        theirs.close()
        self.reason: str = self._answer()

    def turn(self) -> Turn:
        """Time one step there, the second of two."""
        return self._answer(ask=True)

    def close(self) -> None:
        """End its process."""
        self.connection.close()
        self.process.join()

    def _answer(self, *, ask: bool = False) -> str | Turn:
        try:
            if ask:
                self.connection.send(True)
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            sys.exit(f"a contender's process ended with exit code {self.process.exitcode}; its error stands above")


def _serve(name: str, case: Case, connection: Connection) -> None:
    if CONTENDERS[name].keeps_memory:
        keep_freed_memory()
    here = Here(name, case)
    connection.send(here.reason)
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        warming = here.turn()
        told = warming if warming.reason else here.turn()
        # Give back what is kept from step to step, where the C library can: all contenders' together would not fit.
        with suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        connection.send(told)


@contextmanager
def contestants(
    names: list[str], case: Case, kind: type[Here] | type[Apart], before: Path | None = None
) -> Iterator[dict[str, Here | Apart | Earlier]]:
    """The contenders, each built, and "before", ours of an earlier checkout; they are given up at the end."""
    with ExitStack() as stack:
        built = {name: stack.enter_context(closing(kind(name, case))) for name in names}
        if before:
            built["before"] = stack.enter_context(closing(Earlier(before, case.settings())))
        yield built
