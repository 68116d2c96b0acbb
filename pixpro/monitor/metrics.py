"""Where the numbers go: metrics.jsonl and TensorBoard."""

import logging
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from pixpro.monitor.rows import Rows

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
