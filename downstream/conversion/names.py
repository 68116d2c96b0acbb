"""Torchvision names of a ResNet trunk and feature pyramid -> detectron2's names, and the config an arch needs."""

import re
from typing import NamedTuple

from pixpro.errors import UserError


class Shape(NamedTuple):
    """What detectron2's MODEL.RESNETS has to say for its trunk to have an arch's shapes."""

    depth: int
    num_groups: int = 1
    width_per_group: int = 64

    @property
    def res2_out_channels(self) -> int:
        """Channels of res2: basic blocks (depth 18, 34) do not expand."""
        return 64 if self.depth < 50 else 256


SHAPES = {
    "resnet18": Shape(18),
    "resnet34": Shape(34),
    "resnet50": Shape(50),
    "resnet101": Shape(101),
    "resnet152": Shape(152),
    "resnext50_32x4d": Shape(50, 32, 4),
    "resnext101_32x8d": Shape(101, 32, 8),
    "wide_resnet50_2": Shape(50, 1, 128),
    "wide_resnet101_2": Shape(101, 1, 128),
}

BATCH_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"


def trunk_name(key: str) -> str:
    """`res2.0.conv1.norm.weight` for torchvision's `layer1.0.bn1.weight`.

    Raises UserError for a key that is not part of a torchvision ResNet trunk.
    """
    if key == "conv1.weight":
        return "stem.conv1.weight"
    if match := re.fullmatch(rf"bn1\.{BATCH_NORM}", key):
        return f"stem.conv1.norm.{match[1]}"
    if match := re.fullmatch(r"layer([1-4])\.(\d+)\.(.+)", key):
        block, rest = f"res{int(match[1]) + 1}.{match[2]}", match[3]
        if conv := re.fullmatch(r"conv([123])\.weight", rest):
            return f"{block}.conv{conv[1]}.weight"
        if norm := re.fullmatch(rf"bn([123])\.{BATCH_NORM}", rest):
            return f"{block}.conv{norm[1]}.norm.{norm[2]}"
        if rest == "downsample.0.weight":
            return f"{block}.shortcut.weight"
        if norm := re.fullmatch(rf"downsample\.1\.{BATCH_NORM}", rest):
            return f"{block}.shortcut.norm.{norm[1]}"
    raise UserError(f"{key!r} is not a name of a torchvision ResNet trunk; expected conv1, bn1, layer1 to layer4")


def pyramid_name(key: str) -> str:
    """`fpn_lateral2.norm.bias` for `inner_blocks.0.1.bias` of torchvision's FeaturePyramidNetwork.

    Level 0 takes C2. Raises UserError for a key that is not part of a pyramid over C2 to C5.
    """
    if match := re.fullmatch(r"(inner|layer)_blocks\.([0-3])\.([01])\.(.+)", key):
        part = "lateral" if match[1] == "inner" else "output"
        module = f"fpn_{part}{int(match[2]) + 2}"
        if match[3] == "0" and match[4] in ("weight", "bias"):
            return f"{module}.{match[4]}"
        if match[3] == "1" and re.fullmatch(BATCH_NORM, match[4]):
            return f"{module}.norm.{match[4]}"
    raise UserError(f"{key!r} is not a name of a feature pyramid over four levels; the neck cannot be converted")
