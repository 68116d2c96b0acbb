"""How cells are compared: in float32 at least, and in runs of images that fit into memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

PAIRS_AT_ONCE = 2**25  # 128 MiB as float32: 13977 images of 7 x 7 cells, 3 of 56 x 56


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor itself in float32 or float64; a float32 copy of a half-precision one."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """A region in which autocast is off."""
    with torch.autocast(device.type, enabled=False):
        yield


def by_images(function: Callable[..., Tensor], *tensors: Tensor, cells: int) -> list[Tensor]:
    """function(*run of each tensor) for consecutive runs of images, each of at most PAIRS_AT_ONCE pairs of cells.

    tensors: all with the images along the first axis. cells: N, the cells of one image's map.
    A single run, the usual case, is one plain call. Of several, nothing made inside the function stays in memory for
    the backward pass, which computes it again.
    """
    images = max(1, PAIRS_AT_ONCE // cells**2)
    if images >= tensors[0].shape[0]:
        return [function(*tensors)]
    runs = zip(*(tensor.split(images) for tensor in tensors), strict=True)
    return [checkpoint(function, *run, use_reentrant=False, preserve_rng_state=False) for run in runs]
