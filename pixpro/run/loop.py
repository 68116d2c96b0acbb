"""The training loop: steps, and after each what has to be noted, saved, and whether to go on."""

from pixpro.data import Loader
from pixpro.errors import UserError
from pixpro.monitor.usage import GB, Speed, peak_memory
from pixpro.run.preemption import StopRequest
from pixpro.run.record import Record
from pixpro.run.skipped import SkippedSteps
from pixpro.training import distributed
from pixpro.training.endings import Ending, Stopped
from pixpro.training.engine import Trainer


def loop(
    trainer: Trainer,
    loader: Loader,
    last_step: int,
    *,
    log_every: int,
    skipped: SkippedSteps,
    stop: StopRequest,
    record: Record | None,
) -> None:
    """Train until last_step is done; all processes call it, the main one with a record.

    An Ending or UserError that comes between two steps is raised after the state was saved.
    """
    speed = Speed(loader.order.batch_size)
    try:
        for step in trainer.run(loader, last_step, log_every):
            skipped.note(step, loader.source.name)
            speed.note(step.seconds, step.data_seconds)
            if step.health is not None:
                memory = {"memory_gb": peak_memory(trainer.device) / GB}
                numbers = {"loss": step.loss, **step.health, **speed.read(), **memory}
                numbers = distributed.mean_numbers(numbers, trainer.device)
                if record:
                    record.report(step, numbers)
            if skipped.too_many:
                raise skipped.ending(trainer.good_step)
            if record:
                record.after(step, last=step.number == last_step)
            if step.number < last_step and stop.agreed(step.number):
                raise Stopped(f"stopped by {stop.reason}, saved after step {step.number}; go on with --resume auto")
    except (UserError, Ending) as end:
        if record:
            record.save_before(end)
        raise
