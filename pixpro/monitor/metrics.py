"""Where the numbers go: TensorBoard, and metrics.jsonl, which survives kills, resumes and full disks."""

import errno
import json
import logging
import math
import os
import threading
from collections.abc import Callable, Sequence
from io import RawIOBase
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from pixpro.checkpoints.checkpoint import reason, replacing, sync
from pixpro.errors import UserError

LOG = logging.getLogger(__name__)


def quiet_writer_threads(failure: threading.ExceptHookArgs) -> None:
    """Print no traceback for TensorBoard's thread that could not write: `Metrics.write` hears of it and says so."""
    if not (issubclass(failure.exc_type, OSError) and type(failure.thread).__module__.startswith("tensorboard.")):
        threading.__excepthook__(failure)


class Metrics:
    """Writes rows of numbers by step into a run's folder.

    Rows of an earlier life of the run with steps after first_step are dropped: they come again.
    """

    def __init__(self, folder: Path, first_step: int, total_steps: int) -> None:
        self.first_step, self.total_steps = first_step, total_steps
        self.rows = Rows(folder / "metrics.jsonl", first_step)
        threading.excepthook = quiet_writer_threads
        self.board: SummaryWriter | None = SummaryWriter(str(folder), purge_step=first_step + 1)

    def write(self, step: int, values: dict[str, float], remarks: Sequence[str] = ()) -> None:
        """Append one row, with what was said about it; values that are not finite become null, as JSON has no NaN."""
        row = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.rows.append({"step": step, **row, **({"remarks": list(remarks)} if remarks else {})})

        def row_on(board: SummaryWriter) -> None:
            for name, value in values.items():
                board.add_scalar(name, value, step)
            for remark in remarks:
                board.add_text("remarks", remark, step)

        self.show(row_on)

    def picture(self, step: int, name: str, image: Tensor) -> None:
        """Show an image (3, H, W) uint8 on TensorBoard."""
        self.show(lambda board: board.add_image(name, image, step))

    def show(self, action: Callable[[SummaryWriter], None]) -> None:
        """Do something on TensorBoard as long as its file can be written."""
        try:
            if self.board:
                action(self.board)
        except OSError as error:
            LOG.warning("TensorBoard's file cannot be written (%s) and ends here; metrics.jsonl goes on", error)
            self.board = None

    def close(self) -> None:
        """Finish the files."""
        try:
            if self.board:
                self.board.close()
        except OSError as error:
            LOG.warning("the end of TensorBoard's file could not be written (%s)", error)


class Rows:
    """Appends rows of JSON to a file; keeps those that cannot be written and tries again with the next one.

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
            kept = [line for line in lines if first_step and row_step(line) <= first_step]
            with replacing(path) as partial:
                partial.write_text("".join(f"{line}\n" for line in kept))
                sync(partial)
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
