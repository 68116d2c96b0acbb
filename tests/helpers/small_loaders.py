"""Loaders of small batches, and the batches that they give, joined and compared."""

import torch

from pixpro.data import Loader
from pixpro.data.samples import Batch


def loader_of(source, **settings) -> Loader:
    """A loader of batches of 8, if the settings do not say otherwise."""
    return Loader(source, **{"batch_size": 8, "image_size": 32, "seed": 3, **settings})


def joined(batches: list[Batch]) -> list[torch.Tensor]:
    """Every tensor of the batches, one after the other."""
    flat = [[*b.view1, *b.view2, *b[2:]] for b in batches]
    return [torch.cat(parts) for parts in zip(*flat, strict=True)]


def same(a: list[Batch], b: list[Batch]) -> bool:
    """Whether both hold the same samples in the same order, however they are cut into batches."""
    return all(torch.equal(x, y) for x, y in zip(joined(a), joined(b), strict=True))


def epoch_of(loader: Loader, epoch: int = 2, step: int = 0) -> list[Batch]:
    """The batches of an epoch from a step on."""
    loader.set_position(epoch, step)
    return list(loader)
