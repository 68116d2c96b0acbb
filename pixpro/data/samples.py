"""Which image comes when, and (epoch, index) -> its two views, drawn from nothing else; the views in the workers."""

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from pixpro.data.augment import Colour, draw_colour
from pixpro.data.views import Crop, Distance, View, crop_box, crop_pixels, draw_crop
from pixpro.errors import UserError
from pixpro.images import Images
from pixpro.images.decoding import BadImage, decode

Drawn = tuple[Crop, bool, list[float], Colour]
Key = tuple[int, int]  # (epoch, index): all that decides a sample besides the seed
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


def epoch_order(length: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of range(length) of one epoch, (length,) int64.

    From numpy's RandomState, the one generator whose stream is frozen for ever: a run resumed under a newer numpy
    goes on with the same order.
    """
    words = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, epoch]
    return np.random.RandomState(np.array(words, dtype=np.uint32)).permutation(length)


class MicroBatches:
    """Iterates over this rank's lists of keys, from a position to the end of its epoch.

    Step t of an epoch takes permutation[t * batch_size : (t + 1) * batch_size]; each rank has a contiguous part of it,
    each of its micro-batches a contiguous part of that. What is left over at the end of an epoch is not used.
    """

    def __init__(self, length: int, batch_size: int, rank: int, world_size: int, accumulation: int, seed: int):
        parts = world_size * accumulation
        if batch_size <= 0 or batch_size % parts:
            raise UserError(
                f"batch size {batch_size} cannot be shared by {world_size} processes x {accumulation} accumulation "
                f"steps; expected a multiple of {parts}"
            )
        if batch_size > length:
            raise UserError(
                f"batch size {batch_size} is larger than the data set of {length} images; "
                f"choose a smaller batch or add images"
            )
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.accumulation = accumulation
        self.micro = batch_size // parts
        self.first = rank * accumulation * self.micro
        self.epoch = self.step = 0

    @property
    def steps(self) -> int:
        """Global steps in an epoch."""
        return self.length // self.batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, order = self.epoch, epoch_order(self.length, self.seed, self.epoch)
        for step in range(self.step, self.steps):
            for part in range(self.accumulation):
                start = step * self.batch_size + self.first + part * self.micro
                yield [(epoch, int(index)) for index in order[start : start + self.micro]]


def generator(seed: int, epoch: int, index: int, purpose: int) -> random.Random:
    """A generator of its own for each combination; purpose: 0 and 1 for the views, 2 for replacements."""
    return random.Random((((seed << 32 | epoch) << 48 | index) << 2) | purpose)


def draw_view(
    rng: random.Random, role: int, height: int, width: int, distance: Distance, scale: tuple[float, float] = (0.08, 1.0)
) -> Drawn:
    """Crop, flip, box and colours of one view (role 0 or 1) of an image of this size."""
    crop = draw_crop(rng, height, width, scale)
    flip = rng.random() < 0.5
    return crop, flip, crop_box(crop, height, width, flip, distance), draw_colour(rng, role)


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
        boxes, colours = torch.empty(2, len(keys), 4), torch.empty(2, len(keys), 8)
        replaced = []
        for place, (epoch, index) in enumerate(keys):
            image, other = self.load(epoch, index)
            replaced.append(other)
            for role in range(2):
                crop, flip, box, colour = self.draw(epoch, index, role, *image.shape[1:])
                pixels[role, place] = crop_pixels(image, crop, flip, size)
                boxes[role, place], colours[role, place] = torch.tensor(box), torch.tensor(colour)
        view1, view2 = (View(pixels[role].permute(0, 3, 1, 2), boxes[role]) for role in range(2))
        indices = torch.tensor([index for _, index in keys])
        return Batch(view1, view2, colours[0], colours[1], indices, torch.tensor(replaced))

    def draw(self, epoch: int, index: int, role: int, height: int, width: int) -> Drawn:
        """`draw_view` of an image of this size."""
        return draw_view(generator(self.seed, epoch, index, role), role, height, width, self.distance, self.scale)

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
