"""Synchronised BatchNorm for CPU processes, where torch has none: differentiable, over gloo."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class CPUSyncBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose batch is the union of all processes' batches; same parameters, buffers and names."""

    @classmethod
    def convert(cls, model: nn.Module) -> nn.Module:
        """The model with each BatchNorm2d below it replaced in place, weights and statistics shared."""
        for parent in list(model.modules()):
            for name, child in parent.named_children():
                if type(child) is nn.BatchNorm2d:
                    setattr(parent, name, cls._from(child))
        return model

    @classmethod
    def _from(cls, norm: nn.BatchNorm2d) -> "CPUSyncBatchNorm":
        synced = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(synced, name, getattr(norm, name))
        return synced.train(norm.training)

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return super().forward(features)
        mean, variance, count = joint_statistics(features, self.weight.dtype)
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return _Normalise.apply(features, self.weight, self.bias, mean, variance, count, self.eps)


@torch.no_grad()
def joint_statistics(features: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
    """Mean and biased variance per channel, (C,), of all processes' (B, C, H, W); how many values each is of."""
    channels = features.shape[1]
    unused = torch.zeros(2, channels, dtype=dtype)  # the kernel's own running statistics; they set its precision
    mean, variance = torch.batch_norm_update_stats(features, *unused, momentum=0.0)
    own = torch.cat((mean, variance, mean.new_tensor([features.numel() / channels])))
    every = own.new_empty(dist.get_world_size(), len(own))
    dist.all_gather(list(every), own)
    counts = every[:, -1:]
    means, variances = every[:, :channels], every[:, channels:-1]
    count = counts.sum()
    mean = (counts * means).sum(dim=0) / count
    # The variance between the processes' means, as E[x^2] - E[x]^2 would cancel.
    variance = (counts * (variances + (means - mean).square())).sum(dim=0) / count
    return mean, variance, count.item()


class _Normalise(torch.autograd.Function):
    """BatchNorm with given statistics, whose gradient knows that they come from the features of all processes."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        count: float,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(features, weight, mean, variance)
        ctx.count, ctx.eps = count, eps
        return torch.batch_norm(features, weight, bias, mean, variance, False, 0.0, eps, False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, mean, variance = ctx.saved_tensors
        known = (weight, mean, variance, None, None, False, ctx.eps, [True, True, True])
        direct, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(gradient, features, *known)
        both = torch.stack((of_weight, of_bias))
        dist.all_reduce(both)
        # Through the statistics: weight / deviation * (mean gradient + normalised feature * its mean product with the
        # gradient), which is a BatchNorm of its own.
        both *= weight * torch.rsqrt(variance + ctx.eps) / ctx.count
        indirect = torch.batch_norm(features, both[0], both[1], mean, variance, False, 0.0, ctx.eps, False)
        return direct.sub_(indirect), of_weight, of_bias, None, None, None, None
