"""Where mixed precision ends: similarities, distances and losses are computed in float32 at least."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor itself in float32 or float64; a float32 copy of a half-precision one."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """A region in which autocast is off."""
    with torch.autocast(device.type, enabled=False):
        yield
