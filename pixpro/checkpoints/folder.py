"""The folder of one run: taken by one run at a time, cleaned of what a killed one left behind."""

import contextlib
import errno
import fcntl
import json
import os
import socket
from pathlib import Path
from typing import Any

from pixpro.checkpoints.checkpoint import discard, newest_first, reason, replacing, sync
from pixpro.errors import UserError


class RunFolder:
    """Holds a folder for one run until the process ends, however it ends.

    Raises UserError when the folder cannot be made or written, when another run is in it, or when it holds
    checkpoints that a run from the start (`fresh`) would overwrite. Nothing is changed before these checks.
    again: whether a run from the start takes the place of an earlier demo, whose checkpoints are then removed.
    """

    def __init__(self, path: Path, *, fresh: bool, again: bool = False) -> None:
        self.path = path
        again = fresh and again and holds_demo(path)
        if fresh and not again and path.is_dir() and newest_first(path):
            raise UserError(
                f"{path} holds checkpoints of an earlier run; go on from them with --resume auto, "
                "or choose another --output_dir"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = open(path / ".lock", "a+", encoding="utf-8")  # noqa: SIM115 (held for life)
        except OSError as error:
            raise UserError(f"--output_dir {path}: cannot be written to ({reason(error)})") from None
        self._take()
        # Or else --resume auto would go on from them, if this run was killed before its first checkpoint.
        for left in [*path.glob(".*.partial"), *(newest_first(path) if again else ())]:
            discard(left)

    def _take(self) -> None:
        # Not flock: loader workers would inherit it, and hold it for seconds after their trainer was killed.
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return  # a file system without locks
            self._lock.seek(0)
            owner = self._lock.read(200).strip()
            raise UserError(
                f"{self.path}: another run ({owner or 'unknown'}) is writing there; choose another --output_dir"
            ) from None
        with contextlib.suppress(OSError):  # the disk is full; the lock holds without its label
            self._lock.truncate(0)
            self._lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            self._lock.flush()

    def write_json(self, name: str, contents: Any) -> None:
        """Write one small file as a whole; UserError when that fails, because this is how a run begins."""
        try:
            with replacing(self.path / name) as partial:
                partial.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
                sync(partial)
        except OSError as error:
            raise UserError(f"--output_dir {self.path}: cannot be written to ({reason(error)})") from None

    def close(self) -> None:
        """Let another run in."""
        self._lock.close()


def holds_demo(path: Path) -> bool:
    """Whether the last run in a folder was a demo."""
    try:
        return json.loads((path / "config.json").read_text(encoding="utf-8"))["demo"] is True
    except (OSError, ValueError, KeyError, TypeError):
        return False
