"""Checkpoints of untrained encoders whose BatchNorm statistics are those of real features."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from pixpro import PixPro
from pixpro.method.encoder import Encoder


@torch.no_grad()
def calibrate(encoder: Encoder) -> None:
    """Residual branches that are not switched off by a zero gamma, and statistics of a few images."""
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            module.momentum = None
    encoder.features(torch.randn(4, 3, 64, 64))


def state_dict_of(arch: str) -> dict[str, Tensor]:
    """A whole PixPro model's state dict."""
    torch.manual_seed(0)
    model = PixPro(arch, hidden_dim=32, dim=16)
    calibrate(model.encoder)
    return model.state_dict()


def encoder_of(arch: str) -> dict[str, Tensor]:
    """The state dict of an encoder alone, as a PixPro model's."""
    torch.manual_seed(0)
    encoder = Encoder(arch, hidden_dim=32, dim=16)
    calibrate(encoder)
    return {f"encoder.{key}": tensor for key, tensor in encoder.state_dict().items()}


@torch.no_grad()
def neck_of(channels: list[int], width: int = 16) -> dict[str, Tensor]:
    """A feature pyramid's state dict under our names, with statistics that are not those of an untrained one."""
    pyramid = FeaturePyramidNetwork(channels, width, norm_layer=nn.BatchNorm2d)
    for module in pyramid.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            module.num_batches_tracked.fill_(1)
    return {f"encoder.neck.{key}": tensor for key, tensor in pyramid.state_dict().items()}


def write_checkpoint(path: Path, state_dict: dict[str, Tensor]) -> Path:
    """The path, with a checkpoint as train.py lays it out."""
    torch.save({"model": state_dict, "config": {"method": "pixpro"}, "epoch": 3}, path)
    return path
