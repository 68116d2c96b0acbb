"""Images -> two normalised views of each by the training recipe, always the same ones: what a network is judged on."""

import logging
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pixpro.data.augment import augment
from pixpro.data.samples import draw_view
from pixpro.data.views import Distance, View, crop_pixels
from pixpro.errors import UserError
from pixpro.images import Images, open_images, sample_images
from pixpro.images.decoding import BadImage, decode

LOG = logging.getLogger(__name__)
HELD_OUT = 64  # images on which dense matching accuracy is measured
SHOWN = 16  # training images that stand in for them where only pictures are made


def view_pairs(
    images: Iterable[Tensor], size: int, *, seed: int = 0, distance: Distance = "image"
) -> tuple[View, View]:
    """Two views of each image (3, H, W) uint8: pixels (B, 3, size, size), boxes (B, 4).

    An image's views depend on the seed and its place among `images` alone; there must be at least one.
    """
    views: tuple[list, list] = ([], [])
    for number, image in enumerate(images):
        height, width = image.shape[1:]
        for role in (0, 1):
            rng = random.Random(f"matching {seed} {number} {role}")
            crop, flip, box, colour = draw_view(rng, role, height, width, distance)
            pixels = crop_pixels(image, crop, flip, size).permute(2, 0, 1)
            views[role].append((augment(pixels[None], torch.tensor([colour]))[0], torch.tensor(box)))
    first, second = (View(*(torch.stack(parts) for parts in zip(*view, strict=True))) for view in views)
    return first, second


def held_out_pairs(
    paths: Sequence[str | Path], size: int, *, seed: int = 0, distance: Distance = "image"
) -> tuple[View, View]:
    """The `view_pairs` of image files. Raises UserError for a damaged one."""
    images = (held_out_image(str(path), Path(path).read_bytes) for path in paths)
    return view_pairs(images, size, seed=seed, distance=distance)


def open_pairs(
    source: Images, val_data: Sequence[str], image_size: int, distance: Distance
) -> tuple[View, View] | None:
    """The `view_pairs` of a sample of the held-out images, below folders or in archives; always the same one.

    Without any, those of a few of the source's images that can be read; None when none of these can. Raises UserError
    for a damaged held-out image.
    """
    if not val_data:
        sample = list(sample_images(source, SHOWN))
        return view_pairs(sample, image_size, distance=distance) if sample else None
    source = open_images(val_data)
    if source.left_out:
        LOG.warning("held-out images: %s", source.left_out)
    # Class folders in order would give images of one or two classes.
    chosen = sorted(random.Random(0).sample(range(len(source)), min(HELD_OUT, len(source))))
    images = (held_out_image(source.name(index), partial(source.read, index)) for index in chosen)
    return view_pairs(images, image_size, distance=distance)


def held_out_image(name: str, read: Callable[[], bytes]) -> Tensor:
    """An image (3, H, W) uint8; UserError when it cannot be read."""
    try:
        return decode(read())
    except (OSError, BadImage) as error:
        raise UserError(f"{name}: cannot be used as a held-out image: {error}; remove it") from error
