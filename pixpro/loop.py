"""The training loop: steps, and after each what has to be noted, saved, and whether to go on."""

from pixpro import distributed
from pixpro.data import Loader
from pixpro.endings import Ending, Stopped
from pixpro.engine import Trainer
from pixpro.errors import UserError
from pixpro.preemption import StopRequest
from pixpro.record import Record
from pixpro.skipped import SkippedSteps


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
    try:
        for step in trainer.run(loader, last_step):
            skipped.note(step, loader.source.name)
            if step.number % log_every == 0 or step.ends_epoch:
                loss = distributed.mean_over_processes(step.loss).item()
                if record:
                    record.report(step, loss)
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
