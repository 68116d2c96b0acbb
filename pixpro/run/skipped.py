"""Steps whose loss or gradients were not finite: written down with their images, and the end when they are many."""

import json
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path

from pixpro.monitor.rows import Rows
from pixpro.training.distributed import Process
from pixpro.training.endings import Diverged
from pixpro.training.engine import Step

LOG = logging.getLogger(__name__)
FILE = "skipped_steps.jsonl"
LIMIT, WINDOW = 10, 100  # a run stops at this many bad steps among this many


class SkippedSteps:
    """Keeps count of a run's bad steps; all processes note each of their steps, the main one writes."""

    def __init__(self, folder: Path, process: Process, first_step: int) -> None:
        self.folder, self.process = folder, process
        self.recent: deque[bool] = deque(maxlen=WINDOW)
        self.rows = Rows(folder / FILE, first_step) if process.is_main else None

    def note(self, step: Step, name: Callable[[int], str]) -> None:
        """Count a step; one that is bad is written down. name: index of an image -> its name."""
        self.recent.append(step.bad)
        if not step.bad:
            return
        files = [name(index) for index in step.images]
        mine = json.dumps({"rank": self.process.rank, "loss": str(step.loss.item()), "files": files})
        for row in [mine] if self.process.store is None else self._gathered(step.number, mine):
            self.rows.append({"step": step.number, **json.loads(row)})
        if self.process.is_main:
            LOG.warning("step %d skipped: its loss or gradient is not finite; see %s", step.number, self.folder / FILE)

    def _gathered(self, number: int, mine: str) -> list[str]:
        """The rows of all processes, for the main one."""
        store = self.process.store
        store.set(f"skipped/{number}/{self.process.rank}", mine)
        ranks = range(self.process.world_size) if self.process.is_main else ()
        return [store.get(f"skipped/{number}/{rank}").decode() for rank in ranks]

    @property
    def too_many(self) -> bool:
        """Whether it is time to stop."""
        return sum(self.recent) >= LIMIT

    def ending(self, last_good: int) -> Diverged:
        """The end of the run."""
        return Diverged(
            f"{sum(self.recent)} of the last {len(self.recent)} steps had a loss or gradient that is not finite; the "
            f"state after step {last_good} is saved and the images are named in {self.folder / FILE}: look at them, "
            "lower --lr_base, or use --amp bf16 or off, then go on with --resume auto"
        )
