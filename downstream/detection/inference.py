"""A trained detector over all test images, shared out among the processes -> detections in the images' own pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from downstream.detection.data import ImagesToTest, loader
from downstream.detection.fpn_heads import pasted
from downstream.detection.voc_ap import Detections
from pixpro.training.distributed import Process


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
        (result,) = model([pixels.to(process.device, non_blocking=True)])
        found[image.image_id] = in_pixels(result, pixels.shape[1:], (image.height, image.width))
    if process.world_size > 1:
        parts: list | None = [None] * process.world_size if process.is_main else None
        dist.gather_object(found, parts)  # in the order of the ranks
        found = {image_id: result for part in parts or [] for image_id, result in part.items()}
    return found


def in_pixels(result: dict[str, torch.Tensor], shown: Sequence[int], size: tuple[int, int]) -> Detections:
    """A model's detections in a picture of (height, width) size that it was shown at another size."""
    height, width = size
    sides = torch.tensor([width, height] * 2, dtype=torch.float32)
    ratio = sides / torch.tensor([shown[1], shown[0]] * 2)
    boxes = torch.minimum((result["boxes"].cpu() * ratio).clamp(min=0), sides)
    masks = coded(result["masks"].cpu(), boxes, height, width) if "masks" in result else ()
    return Detections(boxes.numpy(), result["scores"].cpu().numpy(), result["labels"].cpu().numpy(), masks)


def coded(masks: torch.Tensor, boxes: torch.Tensor, height: int, width: int) -> tuple[dict[str, Any], ...]:
    """Run-length codes of masks (n, 28, 28) that fill their boxes in a picture of this size; one mask at a time."""
    from pycocotools import mask as codes

    found = (pasted(mask[None], box[None], height, width)[0] for mask, box in zip(masks, boxes, strict=True))
    return tuple(codes.encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in found)
