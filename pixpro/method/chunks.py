"""Runs of images small enough for what they need per pair of cells: bounds the memory of fine feature maps."""

from collections.abc import Callable

from torch import Tensor
from torch.utils.checkpoint import checkpoint

PAIRS_AT_ONCE = 2**25  # 128 MiB as float32: 13977 images of 7 x 7 cells, 3 of 56 x 56


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
