"""Images -> two normalised views of each by the training recipe, always the same ones: what a network is judged on."""

import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pixpro.data.augment import augment, draw_colour
from pixpro.data.views import Distance, View, crop_box, crop_pixels, draw_crop
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
            crop, flip = draw_crop(rng, height, width), rng.random() < 0.5
            pixels = crop_pixels(image, crop, flip, size).permute(2, 0, 1)
            colour = torch.tensor([draw_colour(rng, role)], dtype=torch.float32)
            box = torch.tensor(crop_box(crop, height, width, flip, distance))
            views[role].append((augment(pixels[None], colour)[0], box))
    first, second = (View(*(torch.stack(parts) for parts in zip(*view, strict=True))) for view in views)
    return first, second


def held_out_pairs(
    paths: Sequence[str | Path], size: int, *, seed: int = 0, distance: Distance = "image"
) -> tuple[View, View]:
    """The `view_pairs` of image files. Raises UserError for a damaged one."""

    def images() -> Iterator[Tensor]:
        for path in paths:
            try:
                yield decode(Path(path).read_bytes())
            except (OSError, BadImage) as error:
                raise unusable(str(path), error) from error

    return view_pairs(images(), size, seed=seed, distance=distance)


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

    def images() -> Iterator[Tensor]:
        # Class folders in order would give images of one or two classes.
        for index in sorted(random.Random(0).sample(range(len(source)), min(HELD_OUT, len(source)))):
            try:
                yield decode(source.read(index))
            except BadImage as error:
                raise unusable(source.name(index), error) from error

    return view_pairs(images(), image_size, distance=distance)


def unusable(name: str, error: Exception) -> UserError:
    """What to say of an image that cannot be read."""
    return UserError(f"{name}: cannot be used as a held-out image: {error}; remove it")
