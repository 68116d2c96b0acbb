"""What keeps numbers that are not finite out of the weights and the statistics."""

from collections.abc import Iterable

import torch
from torch import Tensor

LOWEST_SCALE, HIGHEST_SCALE = 1.0, 2.0**24  # of fp16's loss; below, the loss is at fault, above, nothing is gained


def loss_gradient(loss: Tensor) -> Tensor:
    """The gradient to start a backward pass with: 1, or NaN for a loss that is not finite.

    So a bad loss of one process spoils the gradients of all, and all skip the step, without extra communication.
    """
    return torch.where(torch.isfinite(loss.detach()), 1.0, torch.nan).to(loss.dtype)


def all_finite(gradients: Iterable[Tensor]) -> bool:
    """Whether the norms of all gradients are finite; waits for the device."""
    return bool(torch.isfinite(torch.stack(torch._foreach_norm(list(gradients)))).all())


class Buffers:
    """The buffers of a model as they were before a step: a forward pass with NaN spoils BatchNorm's statistics."""

    def __init__(self, buffers: Iterable[Tensor]) -> None:
        by_type: dict[torch.dtype, list[Tensor]] = {}  # lists of one type are copied in few launches, mixed ones singly
        for buffer in buffers:
            by_type.setdefault(buffer.dtype, []).append(buffer)
        self.pairs = [(alike, [torch.empty_like(buffer) for buffer in alike]) for alike in by_type.values()]

    def remember(self) -> None:
        """Copy the buffers."""
        for buffers, copies in self.pairs:
            torch._foreach_copy_(copies, buffers)

    def restore(self) -> None:
        """Put the copies back."""
        for buffers, copies in self.pairs:
            torch._foreach_copy_(buffers, copies)


def limit_scale(scaler: torch.amp.GradScaler, device: torch.device) -> None:
    """Keep fp16's loss scale between the limits, without reading it."""
    if scaler.is_enabled():
        scaler.update(scaler.scale(torch.ones((), device=device)).clamp(LOWEST_SCALE, HIGHEST_SCALE))
