"""A few images that stand for a whole data set."""

import random
from collections.abc import Iterator

from torch import Tensor

from pixpro.images import Images
from pixpro.images.decoding import BadImage, decode


def sample_images(source: Images, count: int) -> Iterator[Tensor]:
    """Up to `count` images (3, H, W) uint8, always the same ones; those that cannot be read are left out."""
    for index in random.Random(0).sample(range(len(source)), min(count, len(source))):
        try:
            yield decode(source.read(index))
        except BadImage:  # the loader replaces it, and `python -m pixpro check` names it
            continue
