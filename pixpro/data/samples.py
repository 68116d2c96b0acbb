"""(epoch, index) -> the two views of an image, drawn from nothing else; runs in the workers."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from pixpro.data.augment import Colour, draw_colour
from pixpro.data.order import Key
from pixpro.data.views import Crop, Distance, View, crop_box, crop_pixels, draw_crop
from pixpro.images import Images
from pixpro.images.decoding import BadImage, decode

REPLACEMENTS = 20  # at 1 % bad files, all of them are bad once in 1e40 samples: then the images are gone


class Batch(NamedTuple):
    """A micro-batch of B images."""

    view1: View  # pixels (B, 3, S, S) uint8, channels last; box (B, 4) float32
    view2: View
    colour1: Tensor  # (B, 8) float32, for `augment`
    colour2: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index; (B,) int64: which image was asked for
    replaced: Tensor  # (B,) bool: its file was bad, another one was taken


class NothingReadable(Exception):
    """An image and all its replacements are bad."""


def generator(seed: int, epoch: int, index: int, purpose: int) -> random.Random:
    """A generator of its own for each combination; purpose: 0 and 1 for the views, 2 for replacements."""
    return random.Random((((seed << 32 | epoch) << 48 | index) << 2) | purpose)


class Samples(Dataset):
    """Micro-batches by their keys: the part of the input pipeline that runs in parallel."""

    def __init__(
        self, source: Images, seed: int, image_size: int, distance: Distance, scale: tuple[float, float]
    ) -> None:
        self.source, self.seed, self.image_size = source, seed, image_size
        self.distance, self.scale = distance, scale

    def __getitems__(self, keys: list[Key]) -> Batch:
        size = self.image_size
        pixels = _empty_for_transfer(2, len(keys), size, size, 3)
        boxes: tuple[list[list[float]], ...] = ([], [])
        colours: tuple[list[Colour], ...] = ([], [])
        replaced = []
        for place, (epoch, index) in enumerate(keys):
            image, other = self.load(epoch, index)
            replaced.append(other)
            for role in range(2):
                crop, flip, box, colour = self.draw(epoch, index, role, *image.shape[1:])
                pixels[role, place] = crop_pixels(image, crop, flip, size)
                boxes[role].append(box)
                colours[role].append(colour)
        view1, view2 = (View(pixels[role].permute(0, 3, 1, 2), torch.tensor(boxes[role])) for role in range(2))
        return Batch(
            view1,
            view2,
            torch.tensor(colours[0]),
            torch.tensor(colours[1]),
            index=torch.tensor([index for _, index in keys]),
            replaced=torch.tensor(replaced),
        )

    def draw(
        self, epoch: int, index: int, role: int, height: int, width: int
    ) -> tuple[Crop, bool, list[float], Colour]:
        """Crop, flip, box and colours of one view (role 0 or 1) of an image of this size."""
        rng = generator(self.seed, epoch, index, role)
        crop = draw_crop(rng, height, width, self.scale)
        flip = rng.random() < 0.5
        return crop, flip, crop_box(crop, height, width, flip, self.distance), draw_colour(rng, role)

    def load(self, epoch: int, index: int, decode: Callable[[bytes], Any] = decode) -> tuple[Any, bool]:
        """What `decode` makes of an image, or of one drawn in its place if its file is bad, and whether it was."""
        rng = None
        chosen = index
        for _ in range(REPLACEMENTS):
            try:
                return decode(self.source.read(chosen)), rng is not None
            except BadImage:
                rng = rng or generator(self.seed, epoch, index, 2)
                chosen = rng.randrange(len(self.source))
        raise NothingReadable(self.source.name(index))


def _empty_for_transfer(*shape: int) -> Tensor:
    """Uninitialised uint8 memory; in a worker it is shared with the training process, which saves a copy."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    count = torch.Size(shape).numel()
    storage = torch.UntypedStorage._new_shared(count)
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape)  # type: ignore[call-overload]  # the stubs ask for strides
