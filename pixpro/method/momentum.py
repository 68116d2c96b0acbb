"""The momentum copy of a module, and its update."""

import copy

import torch
from torch import nn


def momentum_copy(module: nn.Module) -> nn.Module:
    """A copy whose parameters take no gradient; it stays in train mode with BatchNorm statistics of its own."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def update_momentum(momentum: nn.Module, online: nn.Module, coefficient: float) -> None:
    """Move each parameter in place: coefficient x itself + (1 - coefficient) x online. Buffers are not touched."""
    torch._foreach_lerp_(list(momentum.parameters()), list(online.parameters()), 1 - coefficient)
