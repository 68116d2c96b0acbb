"""A checkpoint from anywhere -> the library's model with its trunk."""

import os

import torch
import torchvision
from torch import Tensor, nn

from pixpro.checkpoints.convert import read_checkpoint
from pixpro.checkpoints.trunk import COUNTER
from pixpro.errors import UserError
from pixpro.method.timm_models import is_timm
from pixpro.method.trunks import new_backbone


def load_backbone(path: str | os.PathLike, arch: str | None = None) -> nn.Module:
    """The torchvision or timm model with a checkpoint's trunk and no classifier: (B, 3, H, W) -> (B, channels).

    path: a checkpoint, a file or folder of an export, or `hf-hub:NAME`. Images are RGB in 0..1, normalised with
    ImageNet's mean and standard deviation. float32, in train mode as any new module. What follows the last stage in a
    model of timm (a norm, a last convolution) is as initialised, from a fixed seed.
    Raises UserError unless the file holds a whole trunk, of `arch` if that is given.
    """
    checkpoint = read_checkpoint(path, arch)
    if arch is not None and arch != checkpoint.arch:
        raise UserError(f"{path}: holds a {checkpoint.arch}, not a {arch}; leave arch out or name the right one")
    return backbone(checkpoint.trunk(), checkpoint.arch)


def backbone(trunk: dict[str, Tensor], arch: str) -> nn.Module:
    """The library's model of this name with the given trunk and no classifier."""
    if is_timm(arch):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = new_backbone(arch)
        model.load_state_dict(trunk, strict=False)  # its names and shapes were checked
        return model
    with torch.device("meta"):  # without drawing initial weights that would be overwritten
        model = torchvision.models.get_model(arch, weights=None)
    model.fc = nn.Identity()
    counters = {name: torch.zeros((), dtype=torch.long) for name in model.state_dict() if name.endswith(COUNTER)}
    model.to_empty(device="cpu").load_state_dict(counters | trunk)
    return model
