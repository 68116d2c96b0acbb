"""Before a test: BatchNorm statistics of the finished weights, instead of a running average over changing ones."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def precise_batchnorm(model: nn.Module, batches: Iterable[tuple]) -> None:
    """Set every BatchNorm's mean and variance to those of all the batches together (fvcore's update_bn_stats).

    The model is called as model(*batch), in training mode; weights stay.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    totals = {norm: _Moments(norm) for norm in norms}
    momenta = [norm.momentum for norm in norms]
    hooks = [norm.register_forward_hook(lambda norm, inputs, _: totals[norm].add(inputs[0])) for norm in norms]
    mode = model.training
    model.train()
    for norm in norms:
        norm.momentum = 1.0  # the running statistics become the batch's
    try:
        for batch in batches:
            model(*batch)
    finally:
        for hook in hooks:
            hook.remove()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(mode)
    for norm in norms:
        totals[norm].store()


class _Moments:
    """Mean and mean square of one BatchNorm's inputs, batch by batch, each weighted by its size."""

    def __init__(self, norm: nn.Module) -> None:
        self.norm = norm
        self.count = 0
        self.mean = torch.zeros_like(norm.running_mean)
        self.square = torch.zeros_like(norm.running_var)

    def add(self, inputs: Tensor) -> None:
        """Take in what the norm has just seen; its statistics are this batch's now."""
        count = inputs.numel() // inputs.shape[1]
        mean, variance = self.norm.running_mean, self.norm.running_var * ((count - 1) / count)
        self.count += count
        self.mean += (mean - self.mean) * (count / self.count)
        self.square += (mean.square() + variance - self.square) * (count / self.count)

    def store(self) -> None:
        """Give the norm the statistics of everything seen, the same on every process."""
        if not self.count:
            return
        self.norm.running_mean.copy_(self.mean)
        self.norm.running_var.copy_(self.square - self.mean.square())
        if dist.is_initialized():
            # processes weight their batches by their own number of regions
            for statistic in (self.norm.running_mean, self.norm.running_var):
                dist.broadcast(statistic, 0)
