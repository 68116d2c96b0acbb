"""The published fine-tuning settings of each layout, and the linear rule for another batch or length."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """When to do what: iterations, where the learning rate drops by ten, and the sizes of the images.

    train_sizes, test_size: short sides in pixels; warmup: iterations of linear warm-up from lr / 1000.
    """

    iterations: int
    drops: tuple[int, ...]
    warmup: int
    train_sizes: tuple[int, ...]
    test_size: int
    batch: int = 16
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 1e-4
    max_size: int = 1333
    regions: int = 512
    test_proposals: int = 1000
    precise_bn: int = 200

    def learning_rate(self, step: int) -> float:
        """That of iteration `step`, from 0 (detectron2's WarmupMultiStepLR)."""
        if step < self.warmup:
            return self.lr * (0.001 + 0.999 * step / self.warmup)
        return self.lr * 0.1 ** sum(step >= drop for drop in self.drops)


RECIPES = {
    "voc": Recipe(24_000, (18_000, 22_000), 100, tuple(range(480, 801, 32)), 800),
    "coco": Recipe(90_000, (60_000, 80_000), 1000, tuple(range(640, 801, 32)), 800),
}

# MoCo's transfer test (arXiv:1911.05722), whose FCN this is; train_sizes is the side of the crops. Its learning rates
# and the drops at 70 % and 90 % are as remembered, not checked against its text.
SEGMENTATION_RECIPES = {
    "voc": Recipe(30_000, (21_000, 27_000), 0, (513,), 0, lr=0.003),
    "cityscapes": Recipe(90_000, (63_000, 81_000), 0, (769,), 0, lr=0.01),
}


def scaled(
    recipe: Recipe, *, batch: int, scale: float = 1.0, iterations: int | None = None, lr: float | None = None
) -> Recipe:
    """The recipe for `batch` images per iteration: lr in proportion, as many images seen; then `scale` times as long.

    iterations, lr: in place of those that follow. The learning rate drops at the same shares of the run. The warm-up
    follows the batch alone, but takes no more than a quarter of the run.
    """
    stretch = recipe.batch / batch
    iterations = iterations or max(1, round(recipe.iterations * stretch * scale))
    return replace(
        recipe,
        batch=batch,
        lr=lr or recipe.lr / stretch,
        iterations=iterations,
        drops=tuple(round(drop / recipe.iterations * iterations) for drop in recipe.drops),
        warmup=min(round(recipe.warmup * stretch), iterations // 4),
    )


def scaling_line(published: Recipe, used: Recipe, scale: float) -> str:
    """One line that says what was scaled and by which rule; scale: how many published schedules long it should be."""
    if (published.batch, published.iterations, published.lr) == (used.batch, used.iterations, used.lr):
        return f"published schedule: batch {used.batch}, learning rate {used.lr:g}, {used.iterations} iterations"
    ruled = scaled(published, batch=used.batch, scale=scale)
    rate = "" if used.lr == ruled.lr else " (as given)"
    length = f" (times --scale {scale:g})" if used.iterations == ruled.iterations else " (as given)"
    return (
        f"linear rule: batch {published.batch} -> {used.batch}, learning rate {published.lr:g} -> {used.lr:g}{rate}, "
        f"iterations {published.iterations} -> {used.iterations}{length}, "
        f"drops at {list(used.drops)}, warm-up {published.warmup} -> {used.warmup}"
    )


# The config keys that follow the batch size.
SCALED_KEYS = (
    "SOLVER.BASE_LR",
    "SOLVER.MAX_ITER",
    "SOLVER.STEPS",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_PERIOD",
)


def scaled_settings(settings: Mapping[str, Any], batch: int, reference: int) -> dict[str, Any]:
    """The settings, of SCALED_KEYS, for another batch: learning rate times, iterations over batch / reference."""
    scale = batch / reference

    def iterations(count: int) -> int:
        return round(count / scale)

    lr, length, steps, *others = (settings[key] for key in SCALED_KEYS)
    values = (lr * scale, iterations(length), tuple(map(iterations, steps)), *map(iterations, others))
    return dict(zip(SCALED_KEYS, values, strict=True))
