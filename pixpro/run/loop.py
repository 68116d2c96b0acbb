"""The training loop: steps, and between them one exchange with the others, after which all go on or all end, saved."""

import json
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from pixpro.data import Loader
from pixpro.errors import BY_CODE, Diverged, Stopped
from pixpro.monitor.metrics import Rows
from pixpro.monitor.usage import GB, Speed, peak_memory
from pixpro.run.record import Record
from pixpro.training import distributed
from pixpro.training.engine import Step, Trainer
from pixpro.training.processes import Process

LOG = logging.getLogger(__name__)
SKIPPED = "skipped_steps.jsonl"
LIMIT, WINDOW = 10, 100  # a run stops at this many bad steps among this many


class SkippedSteps:
    """Counts a run's steps whose loss or gradients were not finite, and tells when it should end.

    Each process notes what it saw, with the images; all hear of it, the main one writes it down.
    """

    def __init__(self, folder: Path, process: Process, first_step: int) -> None:
        self.folder, self.process = folder, process
        self.recent: deque[bool] = deque(maxlen=WINDOW)
        self.rows = Rows(folder / SKIPPED, first_step) if process.is_main else None
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
            LOG.warning("step %d skipped: its loss or gradient is not finite; see %s", number, self.folder / SKIPPED)

    def ending(self) -> Diverged | None:
        """The end of the run, when it is time for it."""
        if sum(self.recent) < LIMIT:
            return None
        return Diverged(
            f"{sum(self.recent)} of the last {len(self.recent)} steps had a loss or gradient that is not finite: look "
            f"at the images named in {self.folder / SKIPPED}, lower --lr_base, or use --amp bf16 or off"
        )


def loop(
    trainer: Trainer,
    loader: Loader,
    last_step: int,
    *,
    log_every: int,
    skipped: SkippedSteps,
    process: Process,
    record: Record | None,
) -> None:
    """Train until last_step is done; all processes call it, the main one with a record.

    What ends the run between two steps, on any process, is raised by all after the state was saved.
    """
    speed = Speed(loader.order.batch_size)

    @contextmanager
    def agreed(doing: str, *, stops: bool) -> Iterator[None]:
        """A region between two steps, at whose end all processes agree on whether to go on."""
        with process.together(doing, note=skipped.note(loader.source.name), alone=False) as heard:
            yield
        skipped.hear(heard.notes)
        if ending := skipped.ending():
            raise process.common(ending)
        if heard.wish and stops:
            raise process.common(Stopped(f"stopped by {heard.wish}"))

    @contextmanager
    def ready(number: int) -> Iterator[None]:
        with agreed(f"reading the images of step {number}", stops=True):
            yield
        process.at(f"step {number}")

    try:
        for step in trainer.run(loader, last_step, log_every, ready):
            skipped.saw(step)
            speed.note(step.seconds, step.data_seconds)
            numbers: dict[str, float] | None = None
            if step.health is not None:
                memory = {"memory_gb": peak_memory(trainer.device) / GB}
                own: dict[str, Tensor | float] = {"loss": step.loss, **step.health, **speed.read(), **memory}
                numbers = distributed.mean_numbers(own, trainer.device, largest=("data_wait", "memory_gb"))
            if record:
                with process.apart(f"writing, measuring and saving after step {step.number}"):
                    record.after(step, numbers, last=step.number == last_step)
        with agreed("finishing the last step", stops=False):
            pass
    except Exception as end:
        if not process.agreed:  # it came in the midst of a step: the others wait in it
            raise
        reached = trainer.good_step
        with process.together("saving the state"):
            if record:
                record.save_before(end)
        if type(end) not in BY_CODE.values():  # one of ours, with its traceback
            raise
        if isinstance(end, Stopped):
            raise Stopped(f"{end}, saved after step {reached}; go on with --resume auto") from None
        raise type(end)(f"{end.args[0]}; the state after step {reached} is saved, go on with --resume auto") from None
