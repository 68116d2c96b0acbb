"""Annotated images -> batches: resized as Pillow does on bytes, flipped, grouped by shape; the same after a resume."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from downstream.common.pictures import read_picture
from downstream.detection.annotated import AnnotatedImage
from pixpro.errors import UserError


class TrainImages(Dataset):
    """(position in the run, index of the image) -> (pixels, target), augmented by a function of the position."""

    def __init__(self, images: list[AnnotatedImage], *, short_sides: tuple[int, ...], max_size: int, seed: int) -> None:
        self.images, self.short_sides, self.max_size, self.seed = images, short_sides, max_size, seed

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Pixels (3, H, W) uint8 with `boxes` and `labels`: one of the short sides, and a flip in half the cases."""
        position, index = item
        random = np.random.default_rng((self.seed, position))
        image = self.images[index]
        pixels = resize(read_pixels(image), int(random.choice(self.short_sides)), self.max_size)
        height, width = pixels.shape[:2]
        boxes = image.boxes * (np.array([width, height, width, height]) / ([image.width, image.height] * 2))
        boxes = boxes.clip(0, [width, height, width, height]).astype(np.float32)
        flipped = random.random() < 0.5
        if flipped:
            pixels = pixels[:, ::-1]
            boxes = np.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), axis=1)
        filled = (boxes[:, 2:] - boxes[:, :2] > 1e-5).all(axis=1)
        target = {"boxes": torch.from_numpy(boxes[filled]), "labels": torch.from_numpy(image.labels[filled])}
        if image.masks:
            masks = [decoded(image.masks[i], width, height, flipped) for i in np.flatnonzero(filled)]
            target["masks"] = torch.from_numpy(np.array(masks, np.uint8).reshape(-1, height, width))
        return as_tensor(pixels), target


class ImagesToTest(Dataset):
    """Index -> (pixels (3, H, W) uint8 at the test size, index)."""

    def __init__(self, images: list[AnnotatedImage], *, short_side: int, max_size: int) -> None:
        self.images, self.short_side, self.max_size = images, short_side, max_size

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return as_tensor(resize(read_pixels(self.images[index]), self.short_side, self.max_size)), index


def read_pixels(image: AnnotatedImage) -> np.ndarray:
    """(H, W, 3) uint8 RGB; UserError when the file is damaged or has another size than its annotation says."""
    pixels = read_picture(image.path).permute(1, 2, 0).numpy()
    image.require_size(pixels.shape[1], pixels.shape[0])
    return pixels


def resize(pixels: np.ndarray, short_side: int, max_size: int) -> np.ndarray:
    """The image with this short side, or less if its long side would exceed max_size (ResizeShortestEdge)."""
    height, width = pixels.shape[:2]
    scale = short_side / min(height, width)
    height, width = (short_side, scale * width) if height < width else (scale * height, short_side)
    if max(height, width) > max_size:
        scale = max_size / max(height, width)
        height, width = height * scale, width * scale
    size = (int(width + 0.5), int(height + 0.5))
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BILINEAR))


def decoded(mask: dict[str, Any], width: int, height: int, flipped: bool) -> np.ndarray:
    """A run-length code as (height, width) uint8, resized like the picture, to the nearest pixel, and flipped."""
    from pycocotools import mask as codes

    resized = np.asarray(Image.fromarray(codes.decode(mask)).resize((width, height), Image.Resampling.NEAREST))
    return resized[:, ::-1] if flipped else resized


def as_tensor(pixels: np.ndarray) -> Tensor:
    """(3, H, W) from (H, W, 3)."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def grouped_batches(
    groups: Sequence[Hashable], *, batch: int, seed: int, rank: int, world_size: int
) -> Iterator[list[tuple[int, int]]]:
    """Endless batches of (position, index) for one process, each from one group; groups: that of each image.

    The order is one endless shuffled stream, of which each process takes every world_size-th place.
    """
    random = np.random.default_rng(seed)
    waiting: dict[Hashable, list[tuple[int, int]]] = defaultdict(list)
    position = 0
    while True:
        for index in random.permutation(len(groups)).tolist():
            if position % world_size == rank:
                group = waiting[groups[index]]
                group.append((position, index))
                if len(group) == batch:
                    yield group.copy()
                    group.clear()
            position += 1


def loader(dataset: Dataset, batches: Iterator[list], workers: int) -> Iterator[tuple[list, ...]]:
    """Batches as lists, one of each part of the samples, read by worker processes; their errors arrive unchanged.

    Where there is a GPU they lie in pinned memory, from which copies to it do not hold up the host.
    """
    options = dict(num_workers=workers, collate_fn=transposed, pin_memory=torch.cuda.is_available())
    try:
        yield from DataLoader(dataset, batch_sampler=batches, **options)
    except UserError as error:  # from a worker it comes with the worker's traceback
        raise UserError(error.args[0].strip().rpartition("UserError: ")[2]) from None


def transposed(samples: list[tuple]) -> tuple[list, ...]:
    """[(a, b), (a, b)] -> ([a, a], [b, b])."""
    return tuple(list(column) for column in zip(*samples, strict=True))
