"""A few measured steps on the real data -> what a run would take, and the settings that suit the machine."""

import random
from collections.abc import Callable
from typing import NamedTuple

import torch

from pixpro import distributed
from pixpro.console import duration
from pixpro.data import Loader
from pixpro.engine import Trainer
from pixpro.errors import UserError
from pixpro.images import Images
from pixpro.images.check import expected_pairs
from pixpro.images.decoding import BadImage, decode
from pixpro.usage import GB, Speed, memory_limit, peak_memory
from pixpro.views import Distance

BUDGET = 60.0  # seconds of measured steps after which no larger batch is tried
ROOM = 0.9  # share of the memory that a suggestion may fill
SAMPLED = 256  # images whose sizes stand for all


class Burst(NamedTuple):
    """Measured steps with one micro-batch each, means over the processes."""

    images: int  # of one process
    images_per_second: float  # of all processes
    data_wait: float  # share of the time
    memory: float  # peak bytes of one process


class Plan(NamedTuple):
    """What the bursts say about the machine."""

    bursts: list[Burst]
    per_image: float | None  # bytes; None where only one size was measured
    largest: int  # micro-batch of one process that fits


def measure(trainer: Trainer, loader: Loader, images: int) -> Burst:
    """A burst with `images` per process from the loader; the trainer's weights move, nothing is written."""
    on_gpu = trainer.device.type == "cuda"
    warmup, steps = (3, 20) if on_gpu else (1, 3)
    speed = Speed(loader.order.batch_size)
    start = trainer.good_step
    for step in trainer.run(loader, start + warmup + steps, report_every=warmup + steps + 1):
        if step.number > start + warmup:
            speed.note(step.seconds, step.data_seconds)
    found = {**speed.read(), "memory": peak_memory(trainer.device)}
    return Burst(images, **distributed.mean_numbers(found, trainer.device))


def explore(
    trainer: Trainer, loader_of: Callable[[int], Loader], share: int, processes_per_memory: int, world_size: int
) -> Plan:
    """Bursts of growing micro-batches, up to a process's `share` of a step, as far as memory and patience go.

    loader_of: makes a loader for so many images per process. processes_per_memory: how many share one memory.
    Sizes grow from small ones and stop before the predicted end of the memory: on a CPU running out is fatal.
    """
    limit = ROOM * memory_limit(trainer.device) / processes_per_memory
    images = min(share, 32 if trainer.device.type == "cuda" else 8)
    bursts: list[Burst] = []
    spent = 0.0
    while True:
        try:
            bursts.append(measure(trainer, loader_of(images), images))
        except torch.OutOfMemoryError:
            if not bursts or world_size > 1:
                raise UserError(
                    f"{images} images per process do not fit into the GPU; try a smaller --image_size or --arch"
                ) from None
            return Plan(bursts, per_image(bursts), bursts[-1].images)
        spent += 4 * images * world_size / bursts[-1].images_per_second
        largest = largest_fit(bursts, limit)
        if images == share or spent > BUDGET or largest <= images:
            return Plan(bursts, per_image(bursts), largest)
        images = min(share, 2 * images, largest)


def per_image(bursts: list[Burst]) -> float | None:
    """Bytes that one more image takes, from the two largest bursts; None when they do not tell."""
    if len(bursts) < 2:
        return None
    small, large = bursts[-2:]
    return max(0.0, large.memory - small.memory) / (large.images - small.images) or None


def largest_fit(bursts: list[Burst], limit: float) -> int:
    """The largest micro-batch whose predicted memory is within the limit; never less than what was measured.

    From a single burst all its memory is taken to grow with the images, which errs on the small side.
    """
    last = bursts[-1]
    each = per_image(bursts) or last.memory / last.images
    return max(last.images, last.images + int((limit - last.memory) / each))


def accumulation_for(share: int, largest: int) -> int:
    """The smallest number of accumulation steps that cuts a process's share into equal micro-batches that fit."""
    return next(parts for parts in range(1, share + 1) if share % parts == 0 and share // parts <= largest)


def image_sizes(source: Images) -> tuple[torch.Tensor, torch.Tensor]:
    """Heights and widths of a sample of the readable images; UserError when none is."""
    chosen = random.Random(0).sample(range(len(source)), min(SAMPLED, len(source)))
    sizes = []
    for index in chosen:
        try:
            sizes.append(decode(source.read(index)).shape[1:])
        except BadImage:  # the loader replaces it, and `python -m pixpro.images check` names it
            continue
    if not sizes:
        raise UserError(f"none of {len(chosen)} images could be read; python -m pixpro.images check tells why")
    heights, widths = torch.tensor(sizes).unbind(1)
    return heights, widths


def pairs_line(source: Images, *, distance: Distance, cells: int, threshold: float, crop_min: float) -> str:
    """Expected share of positive pairs on this data set, as a line."""
    heights, widths = image_sizes(source)
    positives, apart = expected_pairs(heights, widths, distance, cells, threshold, crop_min)
    return (
        f"positives   {positives * cells**4:.1f} of the {cells**4} cell pairs of an image ({positives:.2%}), "
        f"none in {apart:.1%} of the crop pairs (from the sizes of {len(heights)} images)"
    )


def plan_lines(
    plan: Plan,
    *,
    images: int,
    epochs: int,
    batch_size: int,
    world_size: int,
    workers: int,
    limit: float,
    peak_lr: Callable[[int, str], float],
    lr_rule: str,
) -> list[str]:
    """What the run would take and the suggested settings, in lines.

    images: of the data set. limit: bytes of the memory. peak_lr: learning rate for a batch and a rule.
    """
    last, share = plan.bursts[-1], batch_size // world_size
    steps = images // batch_size * epochs
    each = f", {plan.per_image / GB:.3g} GB for each image more" if plan.per_image else ""
    parts = accumulation_for(share, plan.largest)
    lines = [
        f"memory      {last.memory / GB:.2f} GB with {last.images} images per process{each}; "
        f"there are {limit / GB:.1f} GB",
        f"speed       {last.images_per_second:.3g} images/s, {last.data_wait:.0%} of the time waiting for data "
        f"({workers} worker(s) per process)",
        f"schedule    {epochs} epochs of {images} images, {steps} steps: "
        f"{duration(steps * batch_size / last.images_per_second)}",
        f"suggestion  --batch_size {batch_size} --accumulation {parts} ({share // parts} images at once per process), "
        f"peak learning rate {peak_lr(batch_size, lr_rule):.4g}",
    ]
    if parts > 1:
        small = share // parts * world_size
        lines.append(
            f"            or --batch_size {small} --lr_rule sqrt, peak learning rate {peak_lr(small, 'sqrt'):.4g}: "
            "more steps of fewer images, as the authors advise for small machines"
        )
    if last.data_wait > 0.1:
        lines.append("            more --workers, or smaller image files: the network waits for its images")
    return lines
