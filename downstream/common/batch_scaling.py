"""Another batch size -> the learning rate and schedule that go with it, by the linear rule."""

from collections.abc import Mapping
from typing import Any

# The config keys that follow the batch size.
KEYS = (
    "SOLVER.BASE_LR",
    "SOLVER.MAX_ITER",
    "SOLVER.STEPS",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_PERIOD",
)


def scaled(settings: Mapping[str, Any], batch: int, reference: int) -> dict[str, Any]:
    """The settings, of KEYS, for another batch: learning rate times, iterations over batch / reference."""
    scale = batch / reference

    def iterations(count: int) -> int:
        return int(round(count / scale))

    lr, length, steps, *others = (settings[key] for key in KEYS)
    values = (lr * scale, iterations(length), tuple(map(iterations, steps)), *map(iterations, others))
    return dict(zip(KEYS, values, strict=True))
