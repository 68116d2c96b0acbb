"""A trained FCN over all test images -> confusion matrix -> mean intersection over union; and pictures of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from tabulate import tabulate
from torch import Tensor, nn

from downstream.detection.data import loader
from downstream.segmentation.data import WholeImages
from downstream.segmentation.masks import PALETTE, VOID
from pixpro.training.distributed import Process


@torch.no_grad()
def tested(model: nn.Module, data: WholeImages, *, process: Process, workers: int) -> Tensor:
    """The confusion matrix of all test images (true classes in rows), void left out; over all processes."""
    model.eval()
    classes = data.data.num_classes
    total = torch.zeros(classes, classes, dtype=torch.int64, device=process.device)
    mine = range(process.rank, len(data.data.test), process.world_size)
    for (pixels,), (mask,) in loader(data, iter([[index] for index in mine]), workers):
        predicted = model([pixels.to(process.device, non_blocking=True)])[0].argmax(dim=0)
        total += confusion(mask.to(process.device, non_blocking=True), predicted, classes)
    if process.world_size > 1:
        dist.all_reduce(total)
    return total.cpu()


@torch.no_grad()
def write_masks(folder: Path, model: nn.Module, data: WholeImages, count: int, process: Process) -> None:
    """One PNG per test image: the image, the true mask and the predicted one side by side, in VOC's colours."""
    folder.mkdir(exist_ok=True)
    model.eval()
    for index, pair in enumerate(data.data.test[:count]):
        pixels, mask = data[index]
        predicted = model([pixels.to(process.device)])[0].argmax(dim=0).cpu()
        panels = [pixels.permute(1, 2, 0).numpy(), PALETTE[mask.numpy()], PALETTE[predicted.numpy()]]
        Image.fromarray(np.concatenate(panels, axis=1)).save(folder / f"{pair.name}.png")


def table(layout: str, label: str, scores: Mapping[str, float]) -> str:
    """This run's mIoU below what is published for its layout."""
    published = {"cityscapes": ("published: PixPro, 400 epochs, Cityscapes val", "77.2")}
    known = published.get(layout, ("published: none known to this project for this layout", "-"))
    rows = [known, (f"this run: {label}", f"{scores['mIoU']:.1f}")]
    return tabulate(rows, ["", "mean IoU"], disable_numparse=True, colalign=("left", "right"))


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
