"""Processes that train together speak through one object: what one of them knows, all of them act on."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from pixpro.errors import BY_CODE, Abandoned, UserError, first_line

ANSWERS = 6.0  # seconds in which a living process answers a call


@dataclass
class Heard:
    """What all processes said in an exchange."""

    notes: list[str] = field(default_factory=list)  # by rank; "" from those with nothing to say
    wish: str = ""  # why one of them wants to stop, if one does


@dataclass
class Answer:
    """What a process says when it is called."""

    doing: str
    alone: bool  # at work of its own, in which it waits for nobody
    idle: float  # seconds at it


@dataclass(eq=False)
class Process:
    """This process's place among all, the device it trains on, and its voice among the others.

    Processes meet in exchanges, which all of them enter in the same order: one at the end of each region of work and
    one in each step. An exchange carries errors, wishes to stop and notes; so no process waits for one that has left,
    and all end together. store: of this attempt, with its own connection: None for a process alone.
    """

    rank: int
    world_size: int
    local_world_size: int  # processes on this machine
    device: torch.device
    store: dist.Store | None = None
    doing: str = "starting"
    alone: bool = False  # at work of its own, in which it waits for nobody
    moves: int = 0  # grows whenever `doing` changes
    idle: float = 0.0  # seconds since then, as the watchdog counts them
    wish: str = ""  # why this process wants to stop, if it does
    agreed: bool = False  # whether the error that is being raised is raised by all
    _late: Exception | None = None  # of work of its own; all hear of it in the next exchange
    _exchanges: int = 0
    _answered: int = 0

    @property
    def is_main(self) -> bool:
        """True for the one process that writes files and prints."""
        return self.rank == 0

    def at(self, doing: str, *, alone: bool = False) -> None:
        """Say what this process does now, for the others to hear when they call."""
        self.doing, self.alone, self.moves = doing, alone, self.moves + 1

    @contextmanager
    def together(self, doing: str, *, note: str = "", alone: bool = True) -> Iterator[Heard]:
        """A region of work that all enter and leave together; an error of any process is raised by all at its end.

        What was heard is filled in then. alone: whether the work may last however long the others wait. Inside,
        processes must not communicate.
        """
        heard, failure = Heard(), None
        self.at(doing, alone=alone)
        try:
            yield heard
        except Exception as error:
            failure = error
        self.at(f"waiting for the others after {doing}")
        self._exchange(heard, self._late or failure, note)

    @contextmanager
    def apart(self, doing: str) -> Iterator[None]:
        """A region of work of this process while others go on and wait; an error in it waits for the next exchange."""
        before = self.doing
        self.at(doing, alone=True)
        try:
            yield
        except Exception as error:
            self._late = self._late or error
        self.at(before)

    def common(self, error: Exception) -> Exception:
        """The error, marked as one that all processes raise at this place."""
        self.agreed = True
        return error

    def _exchange(self, heard: Heard, failure: Exception | None, note: str) -> None:
        self._late, self._exchanges = None, self._exchanges + 1
        said: list[dict[str, Any]] = [{"failure": told(failure), "note": note, "wish": self.wish}]
        if self.world_size > 1:
            said = self._said_by_all(said[0])
        for rank, words in enumerate(said):
            if words["failure"]:
                own = failure if rank == self.rank else None
                raise self.common(own or retold(words["failure"], rank)) from None
        heard.notes = [words["note"] for words in said]
        heard.wish = next((words["wish"] for words in said if words["wish"]), "")

    def _said_by_all(self, words: dict[str, Any]) -> list[dict[str, Any]]:
        """The words of all, by rank. When there are none, which is the rule, this is one number reduced over all.

        The number stays on the CPU, so that a step waits for its GPU no more often than it would alone.
        """
        silence = {"failure": None, "note": "", "wish": ""}
        keys = [f"said/{self._exchanges}/{rank}" for rank in range(self.world_size)]
        if words != silence:
            assert self.store is not None
            self.store.set(keys[self.rank], json.dumps(words))  # before the others are told to look
        speaking = torch.tensor([words != silence], dtype=torch.int32)
        dist.all_reduce(speaking, op=dist.ReduceOp.MAX)
        if not speaking.item():
            return [silence] * self.world_size
        assert self.store is not None
        return [json.loads(self.store.get(key)) if self.store.check([key]) else silence for key in keys]

    def from_main(self, contents: Any) -> Any:
        """The contents that the main process gives; what the others give is ignored."""
        if self.world_size == 1:
            return contents
        box = [contents]
        dist.broadcast_object_list(box, device=self.device)
        return box[0]

    def require_equal(self, settings: dict[str, Any]) -> None:
        """UserError, on all processes, unless all have the same settings; names one that differs."""
        main = self.from_main(settings)
        with self.together("comparing the settings"):
            for name, value in settings.items():
                if main.get(name) != value:
                    raise UserError(
                        f"process {self.rank} has {name} = {value}, process 0 has {main.get(name)}; "
                        "start all processes with the same command, the same data and the same code"
                    )

    def first_to_speak(self) -> bool:
        """Whether no other process has asked this before: one of them says why the run ends."""
        try:
            return self.store is None or self.store.add("spoken", 1) == 1
        except RuntimeError:  # the process that kept the store is gone
            return True

    def answer(self) -> None:
        """Say what this process does to whoever has called since the last time."""
        assert self.store is not None
        words = json.dumps([self.doing, self.alone, self.idle])
        while self.store.check([f"call/{self._answered + 1}"]):
            self._answered += 1
            self.store.set(f"call/{self._answered}/{self.rank}", words)

    def call(self) -> dict[int, Answer]:
        """Ask all processes what they do; the answers of those that live, by rank. RuntimeError: the store is gone.

        The process that keeps an eye on the others of a machine calls, too; it has no rank, and gives no answer.
        """
        assert self.store is not None
        number, waited = self.store.add("calls", 1), 0.0
        self.store.set(f"call/{number}", "")
        keys = {rank: f"call/{number}/{rank}" for rank in range(self.world_size)}
        while True:
            if self.rank >= 0:
                self.answer()
            there = [rank for rank, key in keys.items() if self.store.check([key])]
            if len(there) == self.world_size or waited >= ANSWERS:
                return {rank: Answer(*json.loads(self.store.get(keys[rank]))) for rank in there}
            time.sleep(0.1)
            waited += 0.1


def told(error: Exception | None) -> tuple[int, str] | None:
    """What the others have to know of an error: its exit code, 1 for one of ours, and its text."""
    if error is None:
        return None
    code = getattr(error, "exit_code", 1)
    return code, str(error) if code in BY_CODE else f"{type(error).__name__}: {first_line(error)}"


def retold(words: tuple[int, str], rank: int) -> Exception:
    """The error of another process, as this one raises it."""
    code, text = words
    return BY_CODE[code](text) if code in BY_CODE else Abandoned(f"process {rank} failed ({text}), see its traceback")
