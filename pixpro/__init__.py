"""Dense self-supervised pre-training: the two methods, what a training loop of one's own needs, and the backbones.

The rooms follow the way of the data: images, data, method, checkpoints, visualize, monitor, training, run, plan.
"""

from pixpro.checkpoints.convert import load_backbone
from pixpro.data.augment import augment
from pixpro.data.views import View
from pixpro.method.model import PixContrast, PixPro
from pixpro.training.optim import LARS, parameter_groups
from pixpro.training.schedules import cosine_momentum, warmup_cosine_lr

__all__ = [
    "LARS",
    "PixContrast",
    "PixPro",
    "View",
    "augment",
    "cosine_momentum",
    "load_backbone",
    "parameter_groups",
    "warmup_cosine_lr",
]
