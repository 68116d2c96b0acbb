"""What stands for a whole data set: a few of its images, and a fingerprint that tells it from another one."""

import hashlib
import random
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from pixpro.errors import BadImage
from pixpro.images import Images
from pixpro.images.decoding import decode

SIZED = 1000  # images whose sizes are compared: asking for all of them would take as long as listing them


class ImageSet(NamedTuple):
    """How many images there are, and a hash over their order, their names and some of their sizes."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
    fingerprint: str

    @classmethod
    def of(cls, source: Images) -> "ImageSet":
        """That of a source: its names below its folders and in its archives, wherever these are."""
        count = len(source)
        digest = hashlib.sha256()
        for store in source.stores:
            for array in store.names.arrays().values():
                digest.update(array.data)
        for index in sorted(random.Random(0).sample(range(count), min(SIZED, count))):
            digest.update(source.size(index).to_bytes(8, "little", signed=True))
        return cls(count, digest.hexdigest()[:32])

    def __str__(self) -> str:
        return f"{self.count} with names and sizes {self.fingerprint[:8]}"


def sample_images(source: Images, count: int) -> Iterator[Tensor]:
    """Up to `count` images (3, H, W) uint8, always the same ones; those that cannot be read are left out."""
    for index in random.Random(0).sample(range(len(source)), min(count, len(source))):
        try:
            yield decode(source.read(index))
        except BadImage:  # the loader replaces it, and `python -m pixpro check` names it
            continue
