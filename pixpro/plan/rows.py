"""The plan: a few measured steps of a run on this machine -> what it would take and which settings suit, in rows."""

from collections.abc import Callable

import torch
from tabulate import tabulate

from pixpro.data import Loader
from pixpro.data.views import Distance
from pixpro.errors import UserError
from pixpro.images import Images, sample_images
from pixpro.monitor.console import duration
from pixpro.monitor.usage import GB, memory_limit
from pixpro.plan.bursts import Bursts, explore
from pixpro.plan.check import expected_pairs
from pixpro.training.engine import Trainer
from pixpro.training.processes import Process

FEW_STEPS = 2000  # after 1,000 PixPro's cells had begun to part again at the small scale that was measured
SAMPLED = 256  # images whose sizes stand for all


def make_plan(
    method: str,
    trainer: Trainer,
    loader: Loader,
    loader_of: Callable[[int], Loader],
    process: Process,
    *,
    epochs: int,
    peak_lr: Callable[[int, str], float],
    lr_rule: str,
    recipe: str,
    image_size: int,
    distance: Distance,
    threshold: float,
    crop_min: float,
) -> str:
    """What a run of `epochs` with the loader would take, as text; all processes call it. The trainer's weights move.

    method: its name, for the first line. loader_of: a loader for micro-batches of so many images over all processes.
    peak_lr: learning rate for a batch and a rule. recipe: published or small.
    """
    batch_size, world_size, device = loader.order.batch_size, process.world_size, process.device
    if process.is_main:
        print(f"{method}, {world_size} process(es) on {device.type}: measuring a few steps ...", flush=True)
    found = explore(
        trainer,
        lambda images: loader_of(images * world_size),
        share=batch_size // world_size,
        processes_per_memory=1 if device.type == "cuda" else process.local_world_size,
        world_size=world_size,
    )
    sizes = ", ".join(str(burst.images) for burst in found.bursts)
    rows = plan_rows(
        found,
        images=len(loader.source),
        epochs=epochs,
        batch_size=batch_size,
        world_size=world_size,
        workers=loader.workers,
        limit=memory_limit(device),
        peak_lr=peak_lr,
        lr_rule=lr_rule,
        recipe=recipe,
    )
    cells = trainer.core.encoder.map_side(image_size)
    pairs = pairs_line(loader.source, distance=distance, cells=cells, threshold=threshold, crop_min=crop_min)
    rows = [("measured", f"micro-batches of {sizes} images per process"), *rows, ("positives", pairs)]
    return tabulate(rows, tablefmt="plain", disable_numparse=True)


def accumulation_for(share: int, largest: int) -> int:
    """The smallest number of accumulation steps that cuts a process's share into equal micro-batches that fit."""
    return next(parts for parts in range(1, share + 1) if share % parts == 0 and share // parts <= largest)


def steps_advice(steps: int, recipe: str) -> str | None:
    """What to do where a run has few steps; None where it has enough, or follows the recipe for that."""
    if steps >= FEW_STEPS or recipe == "small":
        return None
    return (
        f"{steps} steps are few for the published recipe, whose cells become alike before they part: "
        "--recipe small, --loss pixcontrast, more --epochs, or --init imagenet (docs/evidence.md)"
    )


def plan_rows(
    found: Bursts,
    *,
    images: int,
    epochs: int,
    batch_size: int,
    world_size: int,
    workers: int,
    limit: float,
    peak_lr: Callable[[int, str], float],
    lr_rule: str,
    recipe: str,
) -> list[tuple[str, str]]:
    """What the run would take and the suggested settings: (what, figure); an empty first part goes on with the last.

    images: of the data set. limit: bytes of the memory. peak_lr: learning rate for a batch and a rule. recipe: that of
    the settings.
    """
    last, share = found.bursts[-1], batch_size // world_size
    steps = images // batch_size * epochs
    each = f", {found.per_image / GB:.3g} GB for each image more" if found.per_image else ""
    parts = accumulation_for(share, found.largest)
    memory = f"{last.memory / GB:.2f} GB with {last.images} images per process{each}; there are {limit / GB:.1f} GB"
    waiting = f"{last.data_wait:.0%} of the time waiting for data ({workers} worker(s) per process)"
    time = duration(steps * batch_size / last.images_per_second)
    at_once = f"--accumulation {parts} ({share // parts} images at once per process)"
    rows = [
        ("memory", memory),
        ("speed", f"{last.images_per_second:.3g} images/s, {waiting}"),
        ("schedule", f"{epochs} epochs of {images} images, {steps} steps: {time}"),
        ("suggestion", f"--batch_size {batch_size} {at_once}, peak learning rate {peak_lr(batch_size, lr_rule):.4g}"),
    ]
    if parts > 1:
        small = share // parts * world_size
        other = f"or --batch_size {small} --lr_rule sqrt, peak learning rate {peak_lr(small, 'sqrt'):.4g}"
        rows.append(("", f"{other}: more steps of fewer images, as the authors advise for small machines"))
    if advice := steps_advice(steps, recipe):
        rows.append(("recipe", advice))
    if last.data_wait > 0.1:
        rows.append(("", "more --workers, or smaller image files: the network waits for its images"))
    return rows


def image_sizes(source: Images) -> tuple[torch.Tensor, torch.Tensor]:
    """Heights and widths of a sample of the readable images; UserError when none is."""
    sizes = [image.shape[1:] for image in sample_images(source, SAMPLED)]
    if not sizes:
        tried = min(SAMPLED, len(source))
        raise UserError(f"none of {tried} images could be read; python -m pixpro check tells why")
    heights, widths = torch.tensor(sizes).unbind(1)
    return heights, widths


def pairs_line(source: Images, *, distance: Distance, cells: int, threshold: float, crop_min: float) -> str:
    """Expected share of positive pairs on this data set, in words."""
    heights, widths = image_sizes(source)
    positives, apart = expected_pairs(heights, widths, distance, cells, threshold, crop_min)
    return (
        f"{positives * cells**4:.1f} of the {cells**4} cell pairs of an image ({positives:.2%}), "
        f"none in {apart:.1%} of the crop pairs (from the sizes of {len(heights)} images)"
    )
