"""Image -> projected feature maps: a torchvision trunk under its own key names, maybe a neck, and a projector."""

from collections.abc import Iterable
from typing import NamedTuple

import torchvision
from torch import Tensor, nn

from pixpro.method.heads import ConvHead
from pixpro.method.neck import LEVELS, PYRAMID_CHANNELS, FeaturePyramid

ARCHS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
NECKS = ("none", "fpn", "stage")
TRUNK = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


class Embedding(NamedTuple):
    """What an encoder gives for a batch of images."""

    maps: tuple[Tensor, ...]  # projected maps (B, dim, H, W), finest level first; a single one without a neck
    instance: Tensor | None  # projected map of the instance branch (B, dim, H, W), if there is one


class Encoder(nn.Module):
    """Trunk and projector: (B, 3, S, S) normalised images -> Embedding with one map of S / 32 cells a side.

    With neck "fpn" the same projector makes a map of S / 2^level cells a side for each of the pyramid's `levels`. With
    "stage" it works on the trunk's own map of one level; the trunk above it is neither run nor trained.
    The trunk's parameters are named as in torchvision (`conv1.weight`, ... `layer4.2.bn3.bias`), the others' below
    `neck.`, `projector.` and `instance_projector.`. The last BatchNorm of each residual block starts at zero.
    """

    def __init__(
        self,
        arch: str = "resnet50",
        hidden_dim: int = 4096,
        dim: int = 256,
        instance: bool = False,
        neck: str = "none",
        levels: Iterable[int] = (3, 4, 5),
    ) -> None:
        super().__init__()
        if arch not in ARCHS:
            raise ValueError(f"unknown arch {arch!r}; expected one of {', '.join(ARCHS)}")
        if neck not in NECKS:
            raise ValueError(f"unknown neck {neck!r}; expected one of {', '.join(NECKS)}")
        trunk = torchvision.models.get_model(arch, weights=None, zero_init_residual=True)
        for name in TRUNK:
            self.add_module(name, getattr(trunk, name))
        channels = trunk.fc.in_features
        stages = [channels // 8, channels // 4, channels // 2, channels]
        self.neck = FeaturePyramid(stages, levels) if neck == "fpn" else None
        self.top = LEVELS[-1]  # the highest level of the trunk that is run
        if neck == "stage":
            if len(set(levels)) != 1:
                raise ValueError(f"levels are {list(levels)}; the neck `stage` works on one level of the trunk")
            self.top = next(iter(levels))
            channels = stages[self.top - LEVELS[0]]
            for level in range(self.top + 1, LEVELS[-1] + 1):
                getattr(self, f"layer{level - 1}").requires_grad_(False)
        self.projector = ConvHead(channels if self.neck is None else PYRAMID_CHANNELS, hidden_dim, dim)
        self.instance_projector = ConvHead(channels, hidden_dim, dim) if instance else None

    @property
    def level(self) -> int:
        """Level of the coarsest projected map."""
        return self.top if self.neck is None else self.neck.levels[-1]

    @property
    def stride(self) -> int:
        """Pixels of an image, along a side, for each cell of the coarsest projected map."""
        return 2**self.level

    @property
    def dense(self) -> str:
        """The trunk's map, c2 to c5, on whose cells the loss works: that of the coarsest projected map."""
        return f"c{self.level}"

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The trunk's maps c2 to c5, of 1/4 to 1/32 of the image's side; with neck "stage" up to its level."""
        maps = {}
        images = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for level in range(LEVELS[0], self.top + 1):
            images = maps[f"c{level}"] = getattr(self, f"layer{level - 1}")(images)
        return maps

    def project(self, features: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """The projected maps that the trunk's maps c2 to c5 give, finest level first."""
        maps = (features[self.dense],) if self.neck is None else self.neck(features)
        return tuple(self.projector(level_map) for level_map in maps)

    def forward(self, images: Tensor) -> Embedding:
        features = self.features(images)
        instance = self.instance_projector(features[f"c{self.top}"]) if self.instance_projector is not None else None
        return Embedding(self.project(features), instance)
