"""step -> learning rate, step -> momentum: pure functions of the global step, so nothing is lost on resume."""

import math


def scaled_lr(lr_base: float, batch_size: int, rule: str = "linear") -> float:
    """Peak learning rate for a global batch: lr_base is the rate at 256 images.

    rule: "linear" (the published recipe), or "sqrt", equal to linear at 1024 images, where the recipe was tuned;
    the authors advise it for smaller batches.
    """
    if rule == "linear":
        return lr_base * batch_size / 256
    if rule == "sqrt":
        return lr_base * 4 * math.sqrt(batch_size / 1024)
    raise ValueError(f"unknown learning-rate rule {rule!r}; expected linear or sqrt")


def warmup_cosine_lr(
    step: int,
    *,
    base_lr: float,
    total_steps: int,
    warmup_steps: int = 0,
    final_lr: float = 1e-6,
    warmup_divisor: float = 100.0,
) -> float:
    """Learning rate of one step (from 0): linear from base_lr / warmup_divisor to base_lr, then cosine to final_lr.

    total_steps, warmup_steps: optimizer steps; the warm-up is part of the total. base_lr: the peak for the whole batch
    (`scaled_lr`). Steps beyond the total go on along the cosine: nothing is raised. The official code's
    `GradualWarmupScheduler` around `CosineAnnealingLR`, per iteration.
    """
    if step <= warmup_steps and warmup_steps > 0:
        return base_lr / warmup_divisor * ((warmup_divisor - 1) * step / warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return final_lr + (base_lr - final_lr) * (1 + math.cos(math.pi * progress)) / 2


def cosine_momentum(step: int, total_steps: int, base: float = 0.99) -> float:
    """Momentum coefficient of one step (from 0): from `base` up to 1 at step total_steps along a cosine.

    1 - (1 - base) x (cos(pi x step / total_steps) + 1) / 2: BYOL's schedule (arXiv:2006.07733), as in the official
    code. total_steps: optimizer steps, 1 or more.
    """
    return 1 - (1 - base) * (math.cos(math.pi * step / total_steps) + 1) / 2


def momentum_steps(num_images: int, batch_size: int, epochs: int) -> int:
    """Length of the momentum schedule as published: truncated once, so up to `epochs` longer than the training."""
    return max(1, int(num_images / batch_size * epochs))
