"""Steps whose loss or gradients were not finite: written down with their images, and the end when they are many."""

import json
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path

from pixpro.errors import Diverged
from pixpro.monitor.rows import Rows
from pixpro.training.engine import Step
from pixpro.training.processes import Process

LOG = logging.getLogger(__name__)
FILE = "skipped_steps.jsonl"
LIMIT, WINDOW = 10, 100  # a run stops at this many bad steps among this many


class SkippedSteps:
    """Keeps count of a run's bad steps: each process notes what it saw, all hear of it, the main one writes."""

    def __init__(self, folder: Path, process: Process, first_step: int) -> None:
        self.folder, self.process = folder, process
        self.recent: deque[bool] = deque(maxlen=WINDOW)
        self.rows = Rows(folder / FILE, first_step) if process.is_main else None
        self._step: Step | None = None

    def saw(self, step: Step) -> None:
        """Remember the step that was just done."""
        self._step = step

    def note(self, name: Callable[[int], str]) -> str:
        """What the others have to know of the last step: "" if it was good. name: index of an image -> its name."""
        step = self._step
        if step is None or not step.bad:
            return ""
        files = [name(index) for index in step.images]
        return json.dumps(
            {"step": step.number, "rank": self.process.rank, "loss": str(step.loss.item()), "files": files}
        )

    def hear(self, notes: list[str]) -> None:
        """Count the last step, and write down what the processes noted."""
        if self._step is None:
            return
        number, self._step = self._step.number, None
        rows = [json.loads(note) for note in notes if note]
        self.recent.append(bool(rows))
        if rows and self.rows:
            for row in rows:
                self.rows.append(row)
            LOG.warning("step %d skipped: its loss or gradient is not finite; see %s", number, self.folder / FILE)

    @property
    def too_many(self) -> bool:
        """Whether it is time to stop."""
        return sum(self.recent) >= LIMIT

    def ending(self) -> Diverged:
        """The end of the run."""
        return Diverged(
            f"{sum(self.recent)} of the last {len(self.recent)} steps had a loss or gradient that is not finite: look "
            f"at the images named in {self.folder / FILE}, lower --lr_base, or use --amp bf16 or off"
        )
