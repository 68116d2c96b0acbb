"""Image -> projected feature maps: a trunk of torchvision or timm, maybe a neck, a projector; and a momentum copy."""

import copy
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import torch
import torchvision
from torch import Tensor, nn

from pixpro.method.heads import LEVELS, PYRAMID_CHANNELS, ConvHead, FeaturePyramid
from pixpro.method.timm_models import cut_after_c5, is_timm, random_layers, timm_maps, timm_model
from pixpro.method.trunks import TRUNK, check_arch, resnet_maps, timm_idle

NECKS = ("none", "fpn", "stage")
Module = TypeVar("Module", bound=nn.Module)


class Embedding(NamedTuple):
    """What an encoder gives for a batch of images."""

    maps: tuple[Tensor, ...]  # projected maps (B, dim, H, W), finest level first; a single one without a neck
    instance: Tensor | None  # projected map of the instance branch (B, dim, H, W), if there is one


class Encoder(nn.Module):
    """Trunk and projector: (B, 3, S, S) normalised images -> Embedding with one map of S / 32 cells a side.

    With neck "fpn" the same projector makes a map of S / 2^level cells a side for each of the pyramid's `levels`. With
    "stage" it works on the trunk's own map of one level; the trunk above it is neither run nor trained.
    The trunk's parameters are named as in torchvision (`conv1.weight`, ... `layer4.2.bn3.bias`) or, below `trunk.`, as
    in timm; the others' below `neck.`, `projector.` and `instance_projector.`. The last BatchNorm of each residual
    block of torchvision's starts at zero. drop_path: share of residual branches left out, for trunks of timm.
    """

    def __init__(
        self,
        arch: str = "resnet50",
        hidden_dim: int = 4096,
        dim: int = 256,
        instance: bool = False,
        neck: str = "none",
        levels: Iterable[int] = (3, 4, 5),
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        levels = tuple(levels)
        check_settings(arch, neck, levels, drop_path)
        self.arch = arch
        if is_timm(arch):
            self.trunk = timm_model(arch, drop_path=drop_path)
            self.taps = cut_after_c5(self.trunk, arch)
            stages = list(self.taps.channels)
        else:
            trunk = torchvision.models.get_model(arch, weights=None, zero_init_residual=True)
            for name in TRUNK:
                self.add_module(name, getattr(trunk, name))
            channels = trunk.fc.in_features
            stages = [channels // 8, channels // 4, channels // 2, channels]
        self.neck = FeaturePyramid(stages, levels) if neck == "fpn" else None
        self.top = levels[0] if neck == "stage" else LEVELS[-1]  # the highest level of the trunk that is run
        channels = stages[self.top - LEVELS[0]]
        self.projector = ConvHead(channels if self.neck is None else PYRAMID_CHANNELS, hidden_dim, dim)
        self.instance_projector = ConvHead(channels, hidden_dim, dim) if instance else None
        self.rest()

    def rest(self) -> None:
        """Take the parameters of the trunk out of training that no loss reaches."""
        # A pyramid's finest level is made of all coarser maps, too.
        seen = [self.top] if self.neck is None else range(self.neck.levels[0], self.top + 1)
        if is_timm(self.arch):
            idle = timm_idle(self.arch, tuple(f"c{level}" for level in seen))
            for name, parameter in self.trunk.named_parameters():
                parameter.requires_grad_(name not in idle)
        else:
            for level in range(self.top + 1, LEVELS[-1] + 1):
                getattr(self, f"layer{level - 1}").requires_grad_(False)

    @property
    def level(self) -> int:
        """Level of the coarsest projected map: each of its cells has 2^level pixels of an image along a side."""
        return self.top if self.neck is None else self.neck.levels[-1]

    @property
    def dense(self) -> str:
        """The trunk's map, c2 to c5, on whose cells the loss works: that of the coarsest projected map."""
        return f"c{self.level}"

    @torch.no_grad()
    def map_side(self, image_side: int) -> int:
        """Cells along a side of the coarsest projected map of square images."""
        training, weight = self.training, next(self.parameters())
        maps = self.eval().features(weight.new_zeros(1, 3, image_side, image_side))
        self.train(training)
        return maps[self.dense].shape[-1]

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The trunk's maps c2 to c5, of 1/4 to 1/32 of the image's side; with neck "stage" up to its level."""
        if is_timm(self.arch):
            return timm_maps(self.trunk, self.taps, images, f"c{self.top}")
        return resnet_maps(self, images, f"c{self.top}")

    def project(self, features: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """The projected maps that the trunk's maps c2 to c5 give, finest level first."""
        maps = (features[self.dense],) if self.neck is None else self.neck(features)
        return tuple(self.projector(level_map) for level_map in maps)

    def forward(self, images: Tensor) -> Embedding:
        features = self.features(images)
        instance = self.instance_projector(features[f"c{self.top}"]) if self.instance_projector is not None else None
        return Embedding(self.project(features), instance)


def check_settings(arch: str, neck: str, levels: Iterable[int], drop_path: float) -> None:
    """Raise ValueError, in one line, for settings of an encoder that do not go together."""
    check_arch(arch)
    if neck not in NECKS:
        raise ValueError(f"unknown neck {neck!r}; expected one of {', '.join(NECKS)}")
    if neck == "stage" and len(set(levels)) != 1:
        raise ValueError(f"levels are {list(levels)}; the neck `stage` works on one level of the trunk")
    if drop_path and not is_timm(arch):
        raise ValueError(f"drop path is for backbones of timm, not for {arch}")


def momentum_copy(module: Module) -> Module:
    """A copy whose parameters take no gradient; it stays in train mode with BatchNorm statistics of its own.

    Layers that leave out a share of what passes them (drop path) leave out nothing in the copy: targets are whole.
    """
    twin = copy.deepcopy(module).requires_grad_(False)
    for part in random_layers(twin):
        part.drop_prob = 0.0  # type: ignore[assignment]  # torch takes every attribute of a module for a tensor
    return twin
