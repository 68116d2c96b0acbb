"""A trunk of five convolutions in place of a ResNet: what a CPU core pre-trains in minutes."""

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import torch
import torchvision
from torch import nn

from downstream.probes.frozen_trunk import trunk_only
from pixpro import load_backbone
from pixpro.checkpoints.checkpoint import load
from pixpro.checkpoints.trunk import trunk_of
from pixpro.method.trunks import TRUNK, new_backbone

SMALL = "five convolutions"  # its name as an arch


class FiveConvolutions(nn.Module):
    """What an encoder takes from a ResNet: (B, 3, S, S) -> (B, 256, S / 8, S / 8), a cell sees 47 pixels a side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32)
        self.relu, self.maxpool = nn.ReLU(), nn.Identity()
        for number, (inputs, outputs, stride) in enumerate(
            [(32, 64, 2), (64, 128, 2), (128, 128, 1), (128, 256, 1)], start=1
        ):
            conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
            self.add_module(f"layer{number}", nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU()))
        self.fc = nn.Linear(256, 1)


@contextlib.contextmanager
def small_trunk() -> Iterator[None]:
    """A region in which every encoder is built on five convolutions, whatever its arch is called."""
    before = torchvision.models.get_model
    torchvision.models.get_model = lambda *args, **options: FiveConvolutions()
    try:
        yield
    finally:
        torchvision.models.get_model = before


def trunk_model(arch: str, checkpoint: Path | None, seed: int = 0) -> nn.Module:
    """The network below `fc`, from a checkpoint, or drawn from the seed as pre-training starts from it."""
    if checkpoint is not None and arch != SMALL:
        return load_backbone(checkpoint, arch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if arch != SMALL:
            return new_backbone(arch)
        model = FiveConvolutions()
    if checkpoint is not None:
        missing, unexpected = model.load_state_dict(trunk_of(load(checkpoint)["model"]), strict=False)
        assert missing == ["fc.weight", "fc.bias"] and not unexpected, (missing, unexpected)
    return model


def maps_until(model: nn.Module, last: str = "layer4") -> nn.Module:
    """Its maps up to a stage as one frozen module in evaluation mode."""
    if isinstance(model, FiveConvolutions):
        names = TRUNK[: TRUNK.index(last) + 1]
        return nn.Sequential(OrderedDict((name, getattr(model, name)) for name in names)).eval().requires_grad_(False)
    return trunk_only(model, int(last[-1]) + 1)
