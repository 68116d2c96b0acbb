"""Measured steps with growing micro-batches -> what the machine can do, as far as memory and patience go."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from pixpro.data import Loader
from pixpro.errors import UserError
from pixpro.monitor.usage import Speed, memory_limit, peak_memory
from pixpro.training import distributed
from pixpro.training.compiling import try_passes
from pixpro.training.engine import Trainer
from pixpro.training.nonfinite import Buffers
from pixpro.training.sync_batchnorm import alone

BUDGET = 60.0  # seconds of measured steps after which no larger batch is tried
ROOM = 0.9  # share of the memory that a suggestion may fill
QUEUED = 2  # batches that a worker makes in advance, the loader's default


class Burst(NamedTuple):
    """Measured steps with one micro-batch each; of several processes the longest wait and the largest memory."""

    images: int  # of one process
    images_per_second: float  # of all processes
    data_wait: float  # share of the time
    memory: float  # peak bytes of one process


class Bursts(NamedTuple):
    """What the bursts say about the machine."""

    bursts: list[Burst]
    per_image: float | None  # bytes; None where only one size was measured
    largest: int  # micro-batch of one process that fits


def measure(trainer: Trainer, loader: Loader, images: int) -> Burst:
    """A burst with `images` per process from the loader; the trainer's weights move, nothing is written."""
    on_gpu = trainer.device.type == "cuda"
    warmup, steps = (3, 20) if on_gpu else (1, 3)
    if on_gpu:
        warmup += QUEUED * loader.workers  # batches that were made while the first steps compiled and chose kernels
        torch.cuda.reset_peak_memory_stats(trainer.device)
    speed = Speed(loader.order.batch_size)
    start = trainer.good_step
    for step in trainer.run(loader, start + warmup + steps, report_every=warmup + steps + 1):
        if step.number > start + warmup:
            speed.note(step.seconds, step.data_seconds)
    found = {**speed.read(), "memory": peak_memory(trainer.device)}
    return Burst(images, **distributed.mean_numbers(found, trainer.device, largest=("data_wait", "memory")))


def explore(
    trainer: Trainer, loader_of: Callable[[int], Loader], share: int, processes_per_memory: int, world_size: int
) -> Bursts:
    """Bursts of growing micro-batches, up to a process's `share` of a step, as far as memory and patience go.

    loader_of: makes a loader for so many images per process. processes_per_memory: how many share one memory.
    Sizes grow from small ones and stop before the predicted end of the memory: on a CPU running out is fatal.
    """
    limit = ROOM * memory_limit(trainer.device) / processes_per_memory
    images = min(share, 32 if trainer.device.type == "cuda" else 8)
    bursts: list[Burst] = []
    spent = 0.0
    while True:
        loader = loader_of(images)
        try:
            if world_size > 1 and not fits_everywhere(trainer, images, loader):
                raise torch.OutOfMemoryError
            bursts.append(measure(trainer, loader, images))
        except torch.OutOfMemoryError:
            if not bursts:
                raise UserError(
                    f"{images} images per process do not fit into the GPU; try a smaller --image_size or --arch"
                ) from None
            return Bursts(bursts, per_image(bursts), bursts[-1].images)
        spent += 4 * images * world_size / bursts[-1].images_per_second
        largest = largest_fit(bursts, limit)
        if images == share or spent > BUDGET or largest <= images:
            return Bursts(bursts, per_image(bursts), largest)
        images = min(share, 2 * images, largest)


def fits_everywhere(trainer: Trainer, images: int, loader: Loader) -> bool:
    """Whether all processes have the memory for the passes of so many images; all call it.

    Each tries alone first: one that ran out of memory in the middle of a real step would leave the others waiting.
    """
    if trainer.device.type != "cuda":
        return True
    fits = True
    try:
        try_alone(trainer, images, next(iter(loader)).view1.pixels.shape[-1])
    except torch.OutOfMemoryError:
        fits = False
    trainer.core.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    return distributed.all_agree(fits, trainer.device)


def try_alone(trainer: Trainer, images: int, side: int) -> None:
    """The passes of a step through the networks on blank images, without a word to other processes."""
    buffers = Buffers(trainer.core.buffers())
    buffers.remember()
    try:
        with alone(trainer.core):
            try_passes(trainer.core, images, side, trainer.amp_dtype)
    finally:
        buffers.restore()


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
