"""A checkpoint from anywhere -> the torchvision model with its trunk."""

import os

import torch
import torchvision
from torch import Tensor, nn

from pixpro.checkpoints.convert import read_checkpoint
from pixpro.checkpoints.trunk import COUNTER
from pixpro.errors import UserError


def load_backbone(path: str | os.PathLike, arch: str | None = None) -> nn.Module:
    """The torchvision model with a checkpoint's trunk and an identity as `fc`: (B, 3, H, W) -> (B, channels).

    Images are RGB in 0..1, normalised with ImageNet's mean and standard deviation. float32, in train mode as any new
    module. Raises UserError unless the file holds a whole trunk, of `arch` if that is given.
    """
    checkpoint = read_checkpoint(path)
    if arch is not None and arch != checkpoint.arch:
        raise UserError(f"{path}: holds a {checkpoint.arch}, not a {arch}; leave arch out or name the right one")
    return backbone(checkpoint.trunk(), checkpoint.arch)


def backbone(trunk: dict[str, Tensor], arch: str) -> nn.Module:
    """The torchvision model of this name with the given trunk and an identity as `fc`."""
    with torch.device("meta"):  # without drawing initial weights that would be overwritten
        model = torchvision.models.get_model(arch, weights=None)
    model.fc = nn.Identity()
    counters = {name: torch.zeros((), dtype=torch.long) for name in model.state_dict() if name.endswith(COUNTER)}
    model.to_empty(device="cpu").load_state_dict(counters | trunk)
    return model
