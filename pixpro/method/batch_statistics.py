"""A module for evaluation with BatchNorm statistics that are fair to new, young and trained networks alike."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


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
