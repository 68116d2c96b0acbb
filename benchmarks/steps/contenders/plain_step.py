"""A training step as it is usually written: autocast forward, backward, optimizer."""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.steps.contenders.case import Case


def plain_step(
    case: Case, optimizer: torch.optim.Optimizer, loss_of: Callable[[], Tensor], dtype: torch.dtype | None
) -> Callable[[], Tensor]:
    """A function that runs one step and returns its loss; fp16 scales the loss."""
    scaler = torch.amp.GradScaler(case.device.type, enabled=dtype == torch.float16)

    def run() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with case.autocast(dtype):
            loss = loss_of()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return run
