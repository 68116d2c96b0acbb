"""Detections on a picture: coloured boxes and masks with class and score, white boxes for the truth."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from downstream.detection.voc_ap import Detections

COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#9a6324")


def draw_detections(
    pixels: np.ndarray, found: Detections, class_names: list[str], threshold: float, truth: np.ndarray | None = None
) -> Image.Image:
    """The picture (H, W, 3) with each box of at least this score; truth: (n, 4) boxes of the objects that are there."""
    picture = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    if truth is not None:
        picture = draw(picture, truth, ["white"] * len(truth))
    shown = found.scores >= threshold
    labels = found.labels[shown].tolist()
    colours = [COLOURS[(label - 1) % len(COLOURS)] for label in labels]
    if found.masks and labels:
        masks = torch.from_numpy(decode([mask for mask, keep in zip(found.masks, shown, strict=True) if keep]))
        picture = draw_segmentation_masks(picture, masks, alpha=0.5, colors=colours)
    named = [f"{class_names[label - 1]} {score:.2f}" for label, score in zip(labels, found.scores[shown], strict=True)]
    picture = draw(picture, found.boxes[shown], colours, named, width=2)
    return Image.fromarray(picture.permute(1, 2, 0).numpy())


def decode(masks: list[dict[str, Any]]) -> np.ndarray:
    """Run-length codes of one size as (n, H, W) bool."""
    from pycocotools import mask as codes

    return codes.decode(masks).transpose(2, 0, 1).astype(bool)


def draw(picture: torch.Tensor, boxes: np.ndarray, colours: list[str], names: list[str] | None = None, width: int = 1):
    """The picture (3, H, W) with the boxes (n, 4) that have a size."""
    sized = (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)
    if not sized.any():
        return picture
    kept = np.flatnonzero(sized).tolist()
    labels = [names[i] for i in kept] if names else None
    return draw_bounding_boxes(
        picture, torch.from_numpy(boxes[sized]), labels, colors=[colours[i] for i in kept], width=width
    )
