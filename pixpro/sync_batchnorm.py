"""Synchronised BatchNorm for CPU processes, where torch has none: differentiable, over gloo."""

import torch
import torch.distributed as dist
from torch import Tensor, nn


class AllReduceSum(torch.autograd.Function):
    """The sum of a tensor over all processes; so is its gradient."""

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


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
        exact = features.float() if features.dtype == torch.bfloat16 else features
        sums = AllReduceSum.apply(torch.cat((exact.sum(dim=(0, 2, 3)), exact.new_tensor([exact[:, 0].numel()]))))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centered = exact - mean[:, None, None]
        # Squares of centred values, in a second reduction: E[x^2] - E[x]^2 would cancel.
        variance = AllReduceSum.apply(centered.square().sum(dim=(0, 2, 3))) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(features.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
