"""Where the numbers go: metrics.jsonl and TensorBoard."""

import logging
import math
import time
from datetime import timedelta
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from pixpro.rows import Rows
from pixpro.verdict import Row

LOG = logging.getLogger(__name__)


class Metrics:
    """Writes rows of numbers by step into a run's folder.

    Rows of an earlier life of the run with steps after first_step are dropped: they come again.
    """

    def __init__(self, folder: Path, first_step: int, total_steps: int) -> None:
        self.first_step, self.total_steps = first_step, total_steps
        self.started = time.perf_counter()
        self.rows = Rows(folder / "metrics.jsonl", first_step)
        self.board: SummaryWriter | None = SummaryWriter(str(folder), purge_step=first_step + 1)

    def write(self, step: int, values: dict[str, float]) -> Row:
        """The row appended; values that are not finite become null in the file, as JSON has no NaN."""
        row = {"step": step, **{name: value if math.isfinite(value) else None for name, value in values.items()}}
        self.rows.append(row)
        try:
            for name, value in values.items() if self.board else ():
                self.board.add_scalar(name, value, step)
        except OSError as error:
            self.give_up_board(error)
        return row

    def note(self, step: int, kind: str, text: str) -> None:
        """Append something said about a step, as a row of its own."""
        self.rows.append({"step": step, "verdict": kind, "text": text})
        try:
            if self.board:
                self.board.add_text("verdict", text, step)
        except OSError as error:
            self.give_up_board(error)

    def eta(self, step: int) -> str:
        """Time left as h:mm:ss, from the mean speed since the start or the resume."""
        done = max(1, step - self.first_step)
        seconds = (time.perf_counter() - self.started) / done * (self.total_steps - step)
        return str(timedelta(seconds=round(seconds)))

    def give_up_board(self, error: OSError) -> None:
        """Go on without TensorBoard."""
        LOG.warning("TensorBoard's file cannot be written (%s) and ends here; metrics.jsonl goes on", error)
        self.board = None

    def close(self) -> None:
        """Finish the files."""
        try:
            if self.board:
                self.board.close()
        except OSError as error:
            LOG.warning("the end of TensorBoard's file could not be written (%s)", error)
