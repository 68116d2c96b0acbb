"""The training loop: steps, and between them one exchange with the others, after which all go on or all end, saved."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from pixpro.data import Loader
from pixpro.errors import BY_CODE, Stopped
from pixpro.monitor.usage import GB, Speed, peak_memory
from pixpro.run.record import Record
from pixpro.run.skipped import SkippedSteps
from pixpro.training import distributed
from pixpro.training.engine import Trainer
from pixpro.training.processes import Process


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
        if skipped.too_many:
            raise process.common(skipped.ending())
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
