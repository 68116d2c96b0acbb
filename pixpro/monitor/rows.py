"""A file of JSON rows by step that survives kills, resumes and full disks: nothing twice, nothing lost."""

import errno
import json
import logging
import os
from io import RawIOBase
from pathlib import Path

from pixpro.checkpoints.checkpoint import put_in_place, reason, sync
from pixpro.errors import UserError

LOG = logging.getLogger(__name__)


class Rows:
    """Appends rows to a file; keeps those that cannot be written and tries again with the next one.

    first_step: rows of later steps are dropped when the file is opened, because the run will write them again, all of
    them if it is 0; so is a row that a kill cut short. UserError when that cannot be done.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        self.path = path
        self.pending: list[str] = []
        try:
            if not path.exists():
                return
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            partial = path.with_name(f".{path.name}.partial")
            kept = [line for line in lines if first_step and row_step(line) <= first_step]
            partial.write_text("".join(f"{line}\n" for line in kept))
            sync(partial)
            put_in_place(partial, path)
        except OSError as error:
            raise UserError(f"{path}: cannot be written to ({reason(error)})") from None

    def append(self, row: dict) -> None:
        """Write a row, after those that failed before; a failure is a warning."""
        self.pending.append(json.dumps(row) + "\n")
        data = "".join(self.pending).encode()
        try:
            # Opened for each row: it works again after the folder was away, and rows are seconds apart.
            with self.path.open("ab", buffering=0) as file:
                append_whole(file, data)
        except OSError as error:
            if len(self.pending) == 1:
                LOG.warning("%s cannot be written (%s); its rows wait in memory", self.path, reason(error))
            return
        self.pending.clear()

    def has(self, step: int, name: str) -> bool:
        """Whether a row of a step with a value of this name is in the file, or waits for it."""
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        return any(name in json.loads(line) for line in [*lines, *self.pending] if row_step(line) == step)


def append_whole(file: RawIOBase, data: bytes) -> None:
    """Append all of the data or nothing; OSError when it does not fit."""
    end, written = file.seek(0, os.SEEK_END), 0
    try:
        written = file.write(data)
        if written != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        if written:
            file.truncate(end)
        raise


def row_step(line: str) -> float:
    """The step of a row; infinity for a line that is no row."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
