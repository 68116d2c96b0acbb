"""Images with masks -> how well a linear classifier on frozen cells names what other images show."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pixpro.data.augment import MEAN, STD
from pixpro.images.decoding import decode
from pixpro.method.encoder import Encoder
from pixpro.method.numerics import batch_statistics

TRAIN_CELLS, TEST_CELLS = 1000, 100_000  # at most, of each class
PENALTY = 0.1  # per cell, on standardised features
BATCH = 40  # images at once
LIMITS = {"trainval": 320, "test": 80}  # images of each split


class MaskedImages(NamedTuple):
    """Images and what their pixels show."""

    pixels: Tensor  # (n, 3, S, S), normalised
    classes: Tensor  # (n, S, S) int64; 255 where nothing is known


class SemanticScore(NamedTuple):
    """A linear classifier of cells, fitted on some images and judged on others."""

    accuracy: float  # mean over the classes of the share of their cells that are named rightly, 0..1
    chance: float  # of a classifier that cannot see: one in so many classes
    images: int  # images judged on


def masked_images(folder: Path, split: str, size: int, limit: int) -> MaskedImages:
    """The first images of a split of a folder in VOC's layout, squeezed to size x size pixels."""
    names = (folder / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()[:limit]
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    pixels, classes = [], []
    for name in names:
        image = decode((folder / "JPEGImages" / f"{name}.jpg").read_bytes())[None].float()
        image = F.interpolate(image, size=(size, size), mode="bilinear", antialias=True, align_corners=False)[0]
        pixels.append((image / 255 - mean) / std)
        with Image.open(folder / "SegmentationClass" / f"{name}.png", formats=["PNG"]) as mask:
            values = np.asarray(mask.resize((size, size), Image.Resampling.NEAREST))
        classes.append(torch.from_numpy(values.astype(np.int64)))
    return MaskedImages(torch.stack(pixels), torch.stack(classes))


def open_masks(folder: Path, image_size: int) -> tuple[MaskedImages, MaskedImages]:
    """Images to fit the classifier on and to judge it on, of twice the size of the crops.

    Crops show half of an image's area on average, so that objects are about as large as in training.
    """
    train, test = (masked_images(folder, split, 2 * image_size, limit) for split, limit in LIMITS.items())
    return train, test


def labelled_cells(
    encode: Callable[[Tensor], Tensor], images: MaskedImages, per_class: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Features (N, C) and classes (N,) of cells drawn by the seed, at most `per_class` of each class.

    encode: images (B, 3, S, S) -> maps (B, C, h, w). A cell's class is that of the pixel in its middle.
    """
    features, labels = [], []
    for pixels, classes in zip(images.pixels.split(BATCH), images.classes.split(BATCH), strict=True):
        maps = encode(pixels).float().cpu()
        rows, columns = (
            ((torch.arange(count) + 0.5) * side / count).long()
            for count, side in zip(maps.shape[2:], classes.shape[1:], strict=True)
        )
        features.append(maps.permute(0, 2, 3, 1).flatten(0, 2))
        labels.append(classes[:, rows][:, :, columns].flatten())
    cells, classes = torch.cat(features), torch.cat(labels)
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for label in classes[classes != 255].unique():
        members = (classes == label).nonzero().squeeze(1)
        chosen.append(members[torch.randperm(len(members), generator=generator)[:per_class]])
    index = torch.cat(chosen)
    return cells[index], classes[index]


def ridge_scores(features: Tensor, classes: Tensor, queries: Tensor, penalty: float = PENALTY) -> Tensor:
    """Class scores (Q, K) of a linear regression on the classes, each class of the same weight.

    features (N, C) are standardised; penalty x |weights|^2 is added to the mean square error.
    """
    counts = torch.bincount(classes).double()
    weights = (1 / counts[classes])[:, None]
    weights = weights / weights.sum()
    x, q = features.double(), queries.double()
    mean, scale = x.mean(dim=0), x.std(dim=0, correction=0).clamp(min=1e-6)
    x, q = (x - mean) / scale, (q - mean) / scale
    x, q = F.pad(x, (0, 1), value=1.0), F.pad(q, (0, 1), value=1.0)
    targets = F.one_hot(classes, len(counts)).double()
    penalties = torch.full((x.shape[1],), penalty, dtype=torch.float64)
    penalties[-1] = 0.0  # not of the intercept
    solution = torch.linalg.solve(x.T @ (weights * x) + penalties.diag(), x.T @ (weights * targets))
    return q @ solution


def balanced_accuracy(scores: Tensor, classes: Tensor) -> float:
    """Mean over the classes (N,) that occur of the share of their rows whose largest score is theirs."""
    right = (scores.argmax(dim=1) == classes).double()
    return torch.stack([right[classes == label].mean() for label in classes.unique()]).mean().item()


@torch.no_grad()
def encoder_semantics(encoder: Encoder, train: MaskedImages, test: MaskedImages, *, seed: int = 0) -> SemanticScore:
    """The score of the trunk's map that `encoder.dense` names; modes, buffers and generators are left alone."""
    device = next(encoder.parameters()).device

    def encode(pixels: Tensor) -> Tensor:
        return encoder.features(pixels.to(device))[encoder.dense]

    with batch_statistics(encoder), torch.autocast(device.type, enabled=False):
        features, classes = labelled_cells(encode, train, TRAIN_CELLS, seed)
        queries, truth = labelled_cells(encode, test, TEST_CELLS, seed)
    accuracy = balanced_accuracy(ridge_scores(features, classes, queries), truth)
    return SemanticScore(accuracy, 1 / len(truth.unique()), len(test.pixels))
