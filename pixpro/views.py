"""Image -> View: a random resized crop, maybe flipped, whose box travels with its pixels."""

from typing import NamedTuple

from torch import Tensor


class View(NamedTuple):
    """A crop and where it came from; batched, both fields have a leading B."""

    pixels: Tensor  # (3, S, S): uint8 from the loader, normalised float in the model
    box: Tensor  # (4,) float32: x0, y0, x1, y1 in the image; x0 > x1 when flipped
