"""Where the numbers go: the console with ETA, metrics.jsonl, TensorBoard."""

import logging
import math
import time
from datetime import timedelta
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from pixpro.rows import Rows

LOG = logging.getLogger(__name__)


class Metrics:
    """Writes rows of numbers by step into a run's folder, and a line each to the console.

    Rows of an earlier life of the run with steps after first_step are dropped: they come again.
    """

    def __init__(self, folder: Path, first_step: int, total_steps: int) -> None:
        self.first_step, self.total_steps = first_step, total_steps
        self.started = time.perf_counter()
        self.rows = Rows(folder / "metrics.jsonl", first_step)
        self.board: SummaryWriter | None = SummaryWriter(str(folder), purge_step=first_step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append one row; values that are not finite become null in the file, as JSON has no NaN."""
        row = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.rows.append({"step": step, **row})
        try:
            for name, value in values.items() if self.board else ():
                self.board.add_scalar(name, value, step)
        except OSError as error:
            LOG.warning("TensorBoard's file cannot be written (%s) and ends here; metrics.jsonl goes on", error)
            self.board = None

    def line(self, step: int, epoch: int, epochs: int, values: dict[str, float]) -> str:
        """The console's line for a step: where the run is, its numbers, and the time left."""
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        return f"epoch {epoch + 1}/{epochs}  step {step}/{self.total_steps}  {numbers}  ETA {self.eta(step)}"

    def eta(self, step: int) -> str:
        """Time left as h:mm:ss, from the mean speed since the start or the resume."""
        done = max(1, step - self.first_step)
        seconds = (time.perf_counter() - self.started) / done * (self.total_steps - step)
        return str(timedelta(seconds=round(seconds)))

    def close(self) -> None:
        """Finish the files."""
        try:
            if self.board:
                self.board.close()
        except OSError as error:
            LOG.warning("the end of TensorBoard's file could not be written (%s)", error)
