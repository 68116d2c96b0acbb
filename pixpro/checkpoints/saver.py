"""When and how a run's state reaches the disk: in the background, in turn, again after a failure."""

import logging
import math
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pixpro.checkpoints.checkpoint import LAST, reason, replacing, sync, write
from pixpro.errors import NotSaved, UserError

LOG = logging.getLogger(__name__)
MakeState = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Interval:
    """A number of minutes, steps or epochs."""

    amount: float
    unit: str  # min, steps or ep

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """The interval that a text like 10min, 500steps or 1ep says; UserError for any other text."""
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?(min|steps?|ep)", text, re.ASCII)
        if match is None:
            raise UserError(f"interval {text!r}: expected a number with its unit, such as 10min, 500steps or 1ep")
        amount, unit = float(match[1]), match[2].replace("step", "steps").replace("ss", "s")
        if amount <= 0 or (unit != "min" and amount != math.floor(amount)):
            raise UserError(f"interval {text!r}: expected more than 0, and whole steps or epochs")
        return cls(amount, unit)

    def passed(self, step: int, epochs_done: int, ends_epoch: bool, minutes: float) -> bool:
        """Whether it is time, after a step: minutes are those since the last time."""
        if self.unit == "min":
            return minutes >= self.amount
        if self.unit == "steps":
            return step % self.amount == 0
        return ends_epoch and epochs_done % self.amount == 0


class Saver:
    """Writes a folder's checkpoints: last.pth.tar, the ones before it, and numbered ones for good.

    every: how often last.pth.tar is written. keep: how many states there are of it and last-1, last-2 ...
    last_is_good: whether last.pth.tar is known to be readable; one that is not is never kept in a good one's place.
    retry_seconds: pause before a failed write is tried again, with the state of that time.
    """

    def __init__(
        self, folder: Path, *, every: Interval, keep: int, last_is_good: bool, retry_seconds: float = 30.0
    ) -> None:
        self.folder, self.every, self.keep = folder, every, keep
        self.last_is_good, self.retry_seconds = last_is_good, retry_seconds
        self.saved = time.monotonic()
        self.retry_at: float | None = None
        self._due = False
        self._thread: threading.Thread | None = None

    def after_step(self, make_state: MakeState, step: int, epochs_done: int, ends_epoch: bool) -> None:
        """Begin a write if it is time and none is under way; a step waits only for the copy of the state."""
        now = time.monotonic()
        self._due |= self.every.passed(step, epochs_done, ends_epoch, (now - self.saved) / 60)
        self._due |= self.retry_at is not None and now >= self.retry_at
        if self._due and not self.busy:
            self._due, self.saved, self.retry_at = False, now, None
            self._thread = threading.Thread(target=self._write, args=(copied(make_state()),), daemon=True)
            self._thread.start()

    def keep_for_good(self, make_state: MakeState, name: str) -> None:
        """Write the present state now, as last.pth.tar and under a name of its own; a failure is a warning."""
        self.finish()
        if self._write(make_state()):
            self._name(name)

    def write_now(self, make_state: MakeState, patience: float, name: str | None = None) -> None:
        """Write the present state before anything else happens; NotSaved when it fails for `patience` seconds."""
        self.finish()
        pause, deadline = 1.0, time.monotonic() + patience
        while not self._write(make_state()):
            left = deadline - time.monotonic()
            if left <= 0:
                raise NotSaved(f"{self.folder} could not be written to; the checkpoint before the last is still there")
            time.sleep(min(pause, left))
            pause = min(2 * pause, 30.0)
        if name:
            self._name(name)

    @property
    def busy(self) -> bool:
        """Whether a write is under way."""
        return self._thread is not None and self._thread.is_alive()

    def finish(self) -> None:
        """Wait for the write under way."""
        if self._thread is not None:
            self._thread.join()

    def _write(self, state: dict[str, Any]) -> bool:
        try:
            with replacing(self.folder / LAST) as partial:
                write(partial, state)
                self._rotate()
        except OSError as error:
            self.retry_at = time.monotonic() + self.retry_seconds
            LOG.warning(
                "CHECKPOINT NOT WRITTEN at step %d: %s (%s); training goes on and the write will be tried again, "
                "free some space or restore the folder",
                state["step"],
                reason(error),
                self.folder,
            )
            return False
        self.last_is_good, self.retry_at, self.saved = True, None, time.monotonic()
        return True

    def _name(self, name: str) -> None:
        """Give the present last.pth.tar a second name, under which it stays."""
        try:
            link_or_copy(self.folder / LAST, self.folder / name)
        except OSError as error:
            LOG.warning("CHECKPOINT %s NOT WRITTEN: %s (%s)", name, reason(error), self.folder)

    def _rotate(self) -> None:
        """Make room for a new last.pth.tar: each kept one moves one place down. A good one is there at any moment."""
        if self.last_is_good:
            names = [LAST, *(f"last-{age}.pth.tar" for age in range(1, self.keep))]
            for younger, older in reversed(list(zip(names, names[1:], strict=False))):
                if (self.folder / younger).exists():
                    os.replace(self.folder / younger, self.folder / older)
        for path in self.folder.glob("last-*.pth.tar"):
            age = path.name[len("last-") : -len(".pth.tar")]
            if age.isdecimal() and int(age) >= self.keep:
                path.unlink()


def copied(contents: Any) -> Any:
    """Nested containers with copies of all tensors on the CPU, which training will not change."""
    if isinstance(contents, Tensor):
        return contents.detach().to("cpu", copy=True)
    if isinstance(contents, dict):
        return {name: copied(value) for name, value in contents.items()}
    if isinstance(contents, list | tuple):
        return type(contents)(copied(value) for value in contents)
    return contents


def link_or_copy(path: Path, target: Path) -> None:
    """A second name for a file's present contents: costs no space where the file system knows hard links.

    It is there as a whole and on disk, or not at all (OSError).
    """
    with replacing(target) as partial:
        partial.unlink(missing_ok=True)
        try:
            os.link(path, partial)
        except OSError:
            shutil.copyfile(path, partial)
            sync(partial)
