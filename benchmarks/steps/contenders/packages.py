"""Packages of others on the same backbone, batch, precision and optimizer; ImportError where one is missing."""

import copy

import torch
import torchvision
from torch import Tensor, nn

from benchmarks.steps.contenders.case import LR, MOMENTUM, WEIGHT_DECAY, Case, Contestant, plain_step, trunk
from pixpro.training.optim import LARS, parameter_groups

LUCIDRAINS, LIGHTLY = "pip install pixel-level-contrastive-learning", "pip install lightly"
BANK = (4096, 128)  # keys and their size, as in lightly's example


class Gives:
    """An augmentation that gives these pixels for the batch, and leaves a batch of another size as it is."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def __call__(self, cutout: Tensor) -> Tensor:
        return self.pixels if cutout.shape == self.pixels.shape else cutout


def pixel_cl(case: Case) -> Contestant:
    """PixelCL's forward pass (pixel and instance loss), our LARS, then its momentum update.

    It cuts two crops out of one image; whole images instead, not flipped, and its two augmentations give our views.
    Its heads are as wide as ours.
    """
    from pixel_level_contrastive_learning import PixelCL

    network = torchvision.models.get_model(case.arch, weights=None, zero_init_residual=True).to(case.device)
    view1, view2 = case.views(torch.channels_last)
    model = PixelCL(
        network,
        image_size=view1.pixels.shape[-1],
        hidden_layer_pixel="layer4",
        hidden_layer_instance=-2,
        projection_size=case.dim,
        projection_hidden_size=case.hidden_dim,
        augment_fn=Gives(view1.pixels),
        augment_fn2=Gives(view2.pixels),
        prob_rand_hflip=0.0,
        moving_average_decay=MOMENTUM,
        cutout_ratio_range=(1.0, 1.0),
    )
    model = model.to(case.device, memory_format=torch.channels_last)
    optimizer = LARS(parameter_groups(model, WEIGHT_DECAY), LR)
    step = plain_step(case, optimizer, lambda: model(view1.pixels), case.amp_dtype)

    def run() -> Tensor:
        loss = step()
        model.update_moving_average()
        return loss

    return Contestant(model, run)


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


def densecl(case: Case, *, example: bool) -> Contestant:
    """A step of DenseCL out of lightly's modules (heads, loss with memory bank, momentum) with our LARS.

    example: as lightly's page has it: view 1 asks, view 2 answers, and the answers run through the trained backbone
    with a graph. Else as DenseCL means it, in both directions: answers of the momentum branch, without a graph, hence
    as many passes as ours.
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
