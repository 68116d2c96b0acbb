"""BatchNorm over the batches of all processes, and view by view where a batch holds both: no host waits, traceable."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
import torch.nn.functional as F
from torch import Tensor, nn

from pixpro.method.model import DensePretraining
from pixpro.training.normalising import gradients, input_gradient, normalise, statistics

JOINED_PIXELS = 2**18  # of a view's batch, up to which a CPU gains from both views in one pass (benchmarks/RESULTS.md)


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm2d of all processes' batches, with statistics for each view; same parameters, buffers and names.

    processes: how many share a batch, each with equally many images. views: how many stand one after the other in a
    batch; their statistics enter the running ones in turn, as if each had come alone. One of timm's, which ends in
    layers of its own (`drop`, `act`), keeps them.
    """

    processes = 1
    views = 1
    counts = True  # its batches; False where `BatchCounters` does it for all layers at once

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(channels, eps, momentum)
        self.drop: nn.Module | None = None
        self.act: nn.Module | None = None

    @classmethod
    def convert(cls, model: nn.Module, processes: int = 1) -> nn.Module:
        """The model with each BatchNorm2d below it replaced in place, weights and statistics shared."""
        for parent in list(model.modules()):
            for name, child in parent.named_children():
                if type(child) is nn.BatchNorm2d or ends_in_activation(child):
                    setattr(parent, name, cls._from(child))
        for module in model.modules():
            if isinstance(module, cls):
                module.processes = processes
        return model

    @classmethod
    def _from(cls, norm: Any) -> "BatchNorm":  # a BatchNorm2d, maybe with the `drop` and `act` of timm
        own = cls(norm.num_features, norm.eps, norm.momentum)
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(own, name, getattr(norm, name))
        if ends_in_activation(norm):
            own.drop, own.act = norm.drop, norm.act
        return own.train(norm.training)

    def forward(self, features: Tensor) -> Tensor:
        normalised = self._normalise(features)
        return normalised if self.act is None or self.drop is None else self.act(self.drop(normalised))

    def _normalise(self, features: Tensor) -> Tensor:
        assert self.momentum is not None
        if self.training and self.counts:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(self.views)
        if not self.training or self.processes * self.views == 1:
            running = self.running_mean, self.running_var, self.weight, self.bias
            of_batch = self.training or self.running_mean is None
            return F.batch_norm(features, *running, of_batch, self.momentum, self.eps)
        assert self.running_mean is not None and self.running_var is not None
        mean, variance, count = joint_statistics(features, self.views, self.processes)
        for of_view, spread in zip(mean.to(self.running_mean.dtype), variance, strict=True):
            self.running_mean.lerp_(of_view, self.momentum)
            self.running_var.lerp_((spread * (count / max(count - 1, 1))).to(self.running_var.dtype), self.momentum)
        return _Normalise.apply(features, self.weight, self.bias, mean, variance, self.processes, self.eps)


def ends_in_activation(module: nn.Module) -> bool:
    """Whether this is a BatchNorm2d like timm's BatchNormAct2d: one with a `drop` and an `act` behind it."""
    return isinstance(module, nn.BatchNorm2d) and isinstance(getattr(module, "act", None), nn.Module)


@contextmanager
def alone(model: nn.Module) -> Iterator[None]:
    """A region in which the BatchNorms of this process exchange nothing with others."""
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    shared = [norm.processes for norm in norms]
    try:
        for norm in norms:
            norm.processes = 1
        yield
    finally:
        for norm, processes in zip(norms, shared, strict=True):
            norm.processes = processes


def join_views(model: DensePretraining, together: bool = True) -> None:
    """Let both views pass the encoders as one batch, each with its own statistics, or (False) in two passes again.

    The numbers are the same up to rounding, but for the running statistics of a projector that serves several levels:
    they take the levels and views in another order. It saves half of the launches, of the weights' gradients and, with
    several processes, of the exchanges; uncompiled, the gradients of the halves have to be joined at each layer.
    """
    model.together = together
    for encoder in (model.encoder, model.momentum_encoder):
        for module in encoder.modules():
            if isinstance(module, BatchNorm):
                module.views = 2 if together else 1


def joined_uncompiled(device: torch.device, images: int, side: int) -> bool:
    """Whether both views of so many images, of side x side pixels, are faster as one batch without a compiler.

    Small ones are on a CPU: the gradient of a weight is computed and brought into its layout once in place of twice.
    Large ones gain nothing. A GPU would move 12 GB more in a step of 128 images (counted).
    """
    return device.type == "cpu" and images * side**2 <= JOINED_PIXELS


@torch.no_grad()
def joint_statistics(features: Tensor, views: int, processes: int) -> tuple[Tensor, Tensor, int]:
    """Mean and biased variance (views, C) of all processes' (views x B, C, H, W); how many values each is of.

    All processes bring the same B, as their loaders do, so that the mean of their means is the mean of all.
    """
    count = features.numel() // features.shape[1] // views * processes
    mean, variance = statistics(features, views)
    if processes > 1:
        own = torch.stack((mean, variance))[None]
        every = collectives.wait_tensor(collectives.all_gather_tensor(own, 0, dist.group.WORLD))  # type: ignore[arg-type]  # never None here
        means, variances = every.unbind(dim=1)
        mean = means.mean(dim=0)
        # The variance between the processes' means, as E[x^2] - E[x]^2 would cancel.
        variance = (variances + (means - mean).square()).mean(dim=0)
    return mean, variance, count


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
        processes: int,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(features, weight, mean, variance)
        ctx.processes, ctx.eps = processes, eps
        return normalise(features, weight, bias, mean, variance, eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, mean, variance = ctx.saved_tensors
        wide = features.is_contiguous(memory_format=torch.channels_last)
        gradient = gradient.contiguous(memory_format=torch.channels_last if wide else torch.contiguous_format)
        sums = gradients(gradient, features, mean, variance, ctx.eps)
        means = sums
        if ctx.processes > 1:
            means = collectives.wait_tensor(collectives.all_reduce(sums, "sum", dist.group.WORLD))  # type: ignore[arg-type]  # never None here
        means = means / (features.numel() // features.shape[1] // len(mean) * ctx.processes)
        of_features = input_gradient(gradient, features, weight, mean, variance, means, ctx.eps)
        of_bias, of_weight = sums.sum(dim=1).to(weight.dtype)
        return of_features, of_weight, of_bias, None, None, None, None


class BatchCounters:
    """How many batches the BatchNorms of encoders have seen, counted for all layers at once.

    Layer by layer it is a launch for each, several hundred in a step.
    """

    def __init__(self, encoders: Iterable[nn.Module]) -> None:
        self.counters: dict[int, list[Tensor]] = {}  # by how often an image passes the layer
        for encoder in encoders:
            for norm, times in passes(encoder).items():
                norm.counts = False
                assert norm.num_batches_tracked is not None
                self.counters.setdefault(times, []).append(norm.num_batches_tracked)

    @torch.no_grad()
    def add(self, batches: int) -> None:
        """Count so many batches that have passed the encoders in training."""
        for times, counters in self.counters.items():
            torch._foreach_add_(counters, times * batches)


@torch.no_grad()
def passes(encoder: nn.Module) -> dict[BatchNorm, int]:
    """How often one image passes each BatchNorm: a projector works on every map of a pyramid, some blocks on none."""
    times: Counter[Any] = Counter()  # hooks are handed any Module; these are on `norms` alone
    norms = [module for module in encoder.modules() if isinstance(module, BatchNorm)]
    modes = [(module, module.training) for module in encoder.modules()]
    handles = [norm.register_forward_hook(lambda norm, *_: times.update([norm])) for norm in norms]
    # On tensors without memory, so that it costs nothing on any device and changes nothing.
    tensors = {name: torch.empty_like(t, device="meta") for name, t in encoder.named_parameters()}
    tensors |= {name: torch.empty_like(t, device="meta") for name, t in encoder.named_buffers()}
    try:
        torch.func.functional_call(encoder.eval(), tensors, torch.empty(1, 3, 64, 64, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return dict(times)
