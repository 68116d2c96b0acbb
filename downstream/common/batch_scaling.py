"""Another batch size -> the learning rate and schedule that go with it, by the linear rule."""

from typing import NamedTuple


class Schedule(NamedTuple):
    """The settings that follow the batch size."""

    lr: float
    max_iter: int
    steps: tuple[int, ...]
    warmup: int
    checkpoint_period: int
    eval_period: int


# The config keys of these settings, in this order.
KEYS = (
    "SOLVER.BASE_LR",
    "SOLVER.MAX_ITER",
    "SOLVER.STEPS",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_PERIOD",
)


def scaled(schedule: Schedule, batch: int, reference: int) -> Schedule:
    """The schedule for another batch by the linear rule: learning rate times, iterations over batch / reference."""
    scale = batch / reference

    def iterations(count: int) -> int:
        return int(round(count / scale))

    return Schedule(
        schedule.lr * scale,
        iterations(schedule.max_iter),
        tuple(iterations(step) for step in schedule.steps),
        iterations(schedule.warmup),
        iterations(schedule.checkpoint_period),
        iterations(schedule.eval_period),
    )
