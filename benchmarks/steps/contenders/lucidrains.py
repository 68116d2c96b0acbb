"""PixelCL of the package pixel-level-contrastive-learning on the same backbone, batch, precision and optimizer."""

import torch
import torchvision
from torch import Tensor

from benchmarks.steps.contenders.case import LR, MOMENTUM, WEIGHT_DECAY, Case, Contestant
from benchmarks.steps.contenders.plain_step import plain_step
from pixpro.training.optim import LARS, parameter_groups

PIP = "pip install pixel-level-contrastive-learning"


class Gives:
    """An augmentation that gives these pixels for the batch, and leaves a batch of another size as it is."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def __call__(self, cutout: Tensor) -> Tensor:
        return self.pixels if cutout.shape == self.pixels.shape else cutout


def build(case: Case) -> Contestant:
    """Its forward pass (pixel and instance loss), our LARS, then its momentum update.

    It cuts two crops out of one image; whole images instead, not flipped, and its two augmentations give our views.
    Its heads are as wide as ours. Raises ImportError where the package is missing.
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
