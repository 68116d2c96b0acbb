"""The floor: the passes through the networks that no implementation of the method can leave out."""

import copy

import torch
from torch import Tensor, nn

from benchmarks.steps.contenders.case import Case, Contestant, trunk
from pixpro.method.heads import ConvHead


def build(case: Case, *, projector: bool) -> Contestant:
    """Forward and backward on both views, and two forwards of a copy without a graph; nothing is updated.

    projector: with the 1x1 convolutions behind the trunk, which are part of the method.
    """
    network, channels = trunk(case.arch)
    if projector:
        network = nn.Sequential(network, ConvHead(channels, case.hidden_dim, case.dim))
    network = network.to(case.device, memory_format=torch.channels_last)
    keys = copy.deepcopy(network).requires_grad_(False)
    view1, view2 = case.views(torch.channels_last)

    def run() -> Tensor:
        network.zero_grad(set_to_none=True)
        with case.autocast(case.amp_dtype):
            maps = network(view1.pixels), network(view2.pixels)
            with torch.no_grad():
                keys(view1.pixels), keys(view2.pixels)
        loss = maps[0].float().mean() + maps[1].float().mean()
        loss.backward()
        return loss.detach()

    return Contestant(network, run)
