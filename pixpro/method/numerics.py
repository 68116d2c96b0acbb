"""How cells are compared: in float32 at least, in runs of images that fit into memory, by fair statistics."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

PAIRS_AT_ONCE = 2**25  # 128 MiB as float32: 13977 images of 7 x 7 cells, 3 of 56 x 56


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor itself in float32 or float64; a float32 copy of a half-precision one."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def full_precision(device: torch.device) -> torch.autocast:
    """A region in which autocast is off."""
    return torch.autocast(device.type, enabled=False)


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


@contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """Evaluation mode in which BatchNorm uses each batch's own statistics; everything is as before afterwards.

    The running statistics of a new network say nothing (0 and 1), those of a young one lag behind: by them, a
    comparison before and after training would measure the statistics. Those of the batch treat both alike,
    as in training, though without synchronisation: one rank may evaluate alone. torch's `update_bn` would put the
    module into training mode, where synchronised BatchNorm waits for the other ranks, and leave its statistics changed.
    """
    modes = {part: part.training for part in module.modules()}
    norms = [part for part in modes if isinstance(part, _BatchNorm)]
    running = [(norm.running_mean, norm.running_var) for norm in norms]
    try:
        module.eval()
        for norm in norms:
            norm.running_mean = norm.running_var = None
        yield
    finally:
        for norm, (mean, var) in zip(norms, running, strict=True):
            norm.running_mean, norm.running_var = mean, var
        for part, training in modes.items():
            part.training = training
