"""The momentum copy of a module, and its update."""

import copy
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def momentum_copy(module: Module) -> Module:
    """A copy whose parameters take no gradient; it stays in train mode with BatchNorm statistics of its own.

    Layers that leave out a share of what passes them (drop path) leave out nothing in the copy: targets are whole.
    """
    twin = copy.deepcopy(module).requires_grad_(False)
    for part in random_layers(twin):
        part.drop_prob = 0.0  # type: ignore[assignment]  # torch takes every attribute of a module for a tensor
    return twin


def random_layers(module: nn.Module) -> list[nn.Module]:
    """The layers that draw at random in train mode: timm's DropPath, by its attribute."""
    return [part for part in module.modules() if getattr(part, "drop_prob", 0.0)]


@torch.no_grad()
def update_momentum(momentum: nn.Module, online: nn.Module, coefficient: float) -> None:
    """Move each parameter in place: coefficient x itself + (1 - coefficient) x online. Buffers are not touched."""
    torch._foreach_lerp_(list(momentum.parameters()), list(online.parameters()), 1 - coefficient)
