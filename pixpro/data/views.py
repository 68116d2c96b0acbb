"""Image -> View: a random resized crop, maybe flipped, whose box travels with its pixels."""

import math
import random
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor

Crop = tuple[int, int, int, int]  # top, left, height, width in pixels
Distance = Literal["image", "pixel"]

RATIO = (3 / 4, 4 / 3)
ATTEMPTS = 10


class View(NamedTuple):
    """A crop and where it came from, as `crop_box` says; batched, both fields have a leading B."""

    pixels: Tensor  # (3, S, S): uint8 from the loader, normalised float in the model
    box: Tensor  # (4,) float32: x0, y0, x1, y1 in the image; x0 > x1 when flipped


def draw_crop(rng: random.Random, height: int, width: int, scale: tuple[float, float] = (0.08, 1.0)) -> Crop:
    """A random crop of `scale` of the area and an aspect ratio of 3/4 to 4/3, the largest central one if none fits.

    Draws from `rng` as the official sampler does from Python's generator (transform_coord.py, RandomResizedCropCoord).
    """
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    for _ in range(ATTEMPTS):
        area = rng.uniform(*scale) * (height * width)
        ratio = math.exp(rng.uniform(low, high))
        w = round(math.sqrt(area * ratio))
        h = round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = rng.randint(0, height - h)
            left = rng.randint(0, width - w)
            return top, left, h, w
    w, h = width, height
    if width / height < RATIO[0]:
        h = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        w = round(height * RATIO[1])
    return (height - h) // 2, (width - w) // 2, h, w


def crop_box(crop: Crop, height: int, width: int, flip: bool, distance: Distance = "image") -> list[float]:
    """x0, y0, x1, y1 of a crop of a height x width image; x0 > x1 when flipped.

    image: from the centre of its first pixel to that of its last, over the image's side minus one, as published:
        0 and 1 are the centres of the image's outermost pixels. A side of one pixel has the coordinate 0.
    pixel: from edge to edge in pixels; pixel i has its centre at i, its edges at i - 0.5 and i + 0.5.
    """
    top, left, h, w = crop
    if distance == "image":
        x, y = max(width - 1, 1), max(height - 1, 1)
        box = [left / x, top / y, (left + w - 1) / x, (top + h - 1) / y]
    else:
        box = [left - 0.5, top - 0.5, left + w - 0.5, top + h - 0.5]
    if flip:
        box[0], box[2] = box[2], box[0]
    return box


def crop_pixels(image: Tensor, crop: Crop, flip: bool, size: int) -> Tensor:
    """The crop, resized like Pillow's antialiased bilinear filter (to 1/255), maybe flipped: (size, size, 3) uint8.

    image: (3, H, W) uint8, channels last in memory (others work, slower).
    """
    top, left, h, w = crop
    # Only this stride of the batch dimension lets torch keep channels last all the way.
    pixels = image.permute(1, 2, 0)[None].permute(0, 3, 1, 2)[:, :, top : top + h, left : left + w]
    resized = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    resized = resized[0].permute(1, 2, 0)
    return resized.flip(1) if flip else resized
