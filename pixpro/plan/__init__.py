"""The plan: a few measured steps of a run on this machine -> what the run would take, and the settings that suit."""

from collections.abc import Callable

from tabulate import tabulate

from pixpro.data import Loader
from pixpro.data.views import Distance
from pixpro.monitor.usage import memory_limit
from pixpro.plan.bursts import explore
from pixpro.plan.rows import pairs_line, plan_rows
from pixpro.training.engine import Trainer
from pixpro.training.processes import Process


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
