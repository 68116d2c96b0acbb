"""True and predicted classes of pixels -> confusion matrix -> mean intersection over union."""

from collections.abc import Sequence

import torch
from torch import Tensor

from downstream.segmentation.masks import VOID


def confusion(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """(classes, classes) int64: how many pixels have this true and that predicted class; truth 255 is left out."""
    counted = truth != VOID
    pairs = truth[counted].long() * classes + predicted[counted].long()
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def class_iou(matrix: Tensor) -> dict[int, float]:
    """Intersection over union, in 0..1, of each class that occurs in the truth or in the prediction."""
    matrix = matrix.double()
    intersection = matrix.diagonal()
    union = matrix.sum(0) + matrix.sum(1) - intersection
    return {label: (intersection[label] / union[label]).item() for label in union.nonzero().flatten().tolist()}


def mean_iou(matrix: Tensor) -> float:
    """The mean over the classes that occur, in 0..1; 0 when none does."""
    found = class_iou(matrix).values()
    return sum(found) / len(found) if found else 0.0


def scores(matrix: Tensor, names: Sequence[str]) -> dict[str, float]:
    """mIoU, pixel accuracy, and IoU/NAME of each class that occurs, in percent."""
    right = (matrix.diagonal().sum() / matrix.sum().clamp(min=1)).item()
    named = {f"IoU/{names[label]}": 100 * iou for label, iou in class_iou(matrix).items()}
    return {"mIoU": 100 * mean_iou(matrix), "pixel accuracy": 100 * right} | named
