"""DenseCL out of lightly's modules (heads, loss with memory bank, momentum) on the same backbone and batch."""

import copy

import torch
from torch import Tensor, nn

from benchmarks.steps.contenders.case import LR, MOMENTUM, WEIGHT_DECAY, Case, Contestant, trunk
from benchmarks.steps.contenders.plain_step import plain_step
from pixpro.training.optim import LARS, parameter_groups

PIP = "pip install lightly"
BANK = (4096, 128)  # keys and their size, as in lightly's example


class Branch(nn.Module):
    """Backbone and both heads: (B, 3, S, S) -> features (B, N, C), global (B, D), local projections (B, N, D)."""

    def __init__(self, arch: str) -> None:
        from lightly.models.modules import DenseCLProjectionHead

        super().__init__()
        self.backbone, channels = trunk(arch)
        self.global_head = DenseCLProjectionHead(channels, channels, BANK[1])
        self.local_head = DenseCLProjectionHead(channels, channels, BANK[1])

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.backbone(pixels)
        pooled = self.global_head(features.mean(dim=(2, 3)))
        cells = features.flatten(2).transpose(1, 2)
        return cells, pooled, self.local_head(cells)


def build(case: Case, *, example: bool) -> Contestant:
    """One step with our LARS.

    example: as lightly's page has it: view 1 asks, view 2 answers, and the answers run through the trained backbone
    with a graph. Else as DenseCL means it, in both directions: answers of the momentum branch, without a graph, hence
    as many passes as ours. Raises ImportError where the package is missing.
    """
    from lightly.loss import NTXentLoss
    from lightly.models.utils import select_most_similar, update_momentum

    online = Branch(case.arch).to(case.device, memory_format=torch.channels_last)
    keys = copy.deepcopy(online).requires_grad_(False)
    losses = [NTXentLoss(memory_bank_size=BANK).to(case.device) for _ in range(2)]
    optimizer = LARS(parameter_groups(online, WEIGHT_DECAY), LR)
    view1, view2 = case.views(torch.channels_last)

    def one_way(query: tuple[Tensor, ...], key: tuple[Tensor, ...]) -> Tensor:
        nearest = select_most_similar(query[0], key[0], key[2])
        return 0.5 * (losses[0](query[1], key[1]) + losses[1](query[2].flatten(0, 1), nearest.flatten(0, 1)))

    def loss_of() -> Tensor:
        if example:
            return one_way(online(view1.pixels), online(view2.pixels))
        query1, query2 = online(view1.pixels), online(view2.pixels)
        with torch.no_grad():
            key1, key2 = keys(view1.pixels), keys(view2.pixels)
        return one_way(query1, key2) + one_way(query2, key1)

    step = plain_step(case, optimizer, loss_of, case.amp_dtype)

    def run() -> Tensor:
        update_momentum(online, keys, m=MOMENTUM)
        return step()

    return Contestant(online, run)
