"""The loops of a detector: training steps, and detections in test images, on one process or several."""

import hashlib
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import nn

from downstream.detection_data import Batch, ImagesToTest, loader
from downstream.voc_ap import Detections
from pixpro.distributed import Process
from pixpro.errors import UserError


def training_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    *,
    learning_rate: Callable[[int], float],
    first: int,
    last: int,
    seed: int,
    process: Process,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train steps first..last - 1 and yield after each: how many are done, and its losses and learning rate.

    What is drawn at random in a step depends on (seed, step, rank) alone, so a resumed run goes on as it would have.
    """
    for step in range(first, last):
        images, targets = to_device(next(batches), process.device)
        torch.manual_seed(step_seed(seed, step, process.rank))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        losses = model(images, targets)
        total = sum(losses.values())
        if not torch.isfinite(total):
            raise UserError(
                f"training diverged: the loss of iteration {step + 1} is {total.item()}; check weights and data"
            )
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        values = {name: loss.item() for name, loss in losses.items()}
        yield step + 1, {"loss": total.item(), **values, "lr": learning_rate(step)}


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on the device."""
    images, targets = batch
    return (
        [image.to(device, non_blocking=True) for image in images],
        [{name: value.to(device, non_blocking=True) for name, value in target.items()} for target in targets],
    )


def step_seed(*numbers: int) -> int:
    """A seed of 63 bits that depends on all the numbers."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:8], "big") >> 1


@torch.no_grad()
def detect(model: nn.Module, dataset: ImagesToTest, *, process: Process, workers: int) -> dict[str, Detections]:
    """Detections of all images in their own pixels, in the set's order; complete on the main process only.

    One image at a time, as the published numbers were made; each process takes one run of neighbours.
    """
    model.eval()
    share = -(-len(dataset) // process.world_size)
    mine = range(len(dataset))[process.rank * share : (process.rank + 1) * share]
    found: dict[str, Detections] = {}
    for (pixels,), (index,) in loader(dataset, iter([[index] for index in mine]), workers):
        image = dataset.images[index]
        (result,) = model([pixels.to(process.device)])
        size = torch.tensor([image.width, image.height] * 2, dtype=torch.float32)
        ratio = size / torch.tensor([pixels.shape[2], pixels.shape[1]] * 2)
        boxes = torch.minimum((result["boxes"].cpu() * ratio).clamp(min=0), size)
        found[image.image_id] = Detections(
            boxes.numpy(), result["scores"].cpu().numpy(), result["labels"].cpu().numpy()
        )
    return gathered(found, process)


def gathered(found: dict[str, Detections], process: Process) -> dict[str, Detections]:
    """The processes' parts joined in the order of their ranks, on the main process; {} elsewhere."""
    if process.world_size == 1:
        return found
    parts: list | None = [None] * process.world_size if process.is_main else None
    dist.gather_object(found, parts)
    return {image_id: result for part in parts or [] for image_id, result in part.items()}
