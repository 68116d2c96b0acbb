"""A trunk of five convolutions in place of a ResNet: what a CPU core pre-trains in minutes."""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from unittest import mock

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
    """What an encoder takes from a ResNet: (B, 3, S, S) -> (B, 256, S / 8, S / 8), a cell sees 47 pixels a side.

    channels: of the five maps. pool: behind the first, S / 16 if it halves the map.
    """

    def __init__(
        self, channels: tuple[int, ...] = (32, 64, 128, 128, 256), pool: type[nn.Module] = nn.Identity
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels[0], 3, stride=2, padding=1, bias=False)
        self.bn1, self.relu, self.maxpool = nn.BatchNorm2d(channels[0]), nn.ReLU(), pool(2)
        for number, (inputs, outputs) in enumerate(pairwise(channels), start=1):
            conv = nn.Conv2d(inputs, outputs, 3, 2 if number < 3 else 1, padding=1, bias=False)
            self.add_module(f"layer{number}", nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU()))
        self.fc = nn.Linear(channels[-1], 1)


def small_trunk(trunk: Callable[[], nn.Module] = FiveConvolutions) -> AbstractContextManager:
    """A region in which every encoder is built on five convolutions, whatever its arch is called."""
    return mock.patch.object(torchvision.models, "get_model", lambda *args, **options: trunk())


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
