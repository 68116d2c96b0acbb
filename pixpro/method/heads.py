"""What stands on a trunk's maps: the neck of detectors, and heads of 1x1 convolutions; pre-trained together with it."""

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

LEVELS = (2, 3, 4, 5)
PYRAMID_CHANNELS = 256


class FeaturePyramid(FeaturePyramidNetwork):
    """Pyramid maps of the chosen levels, finest first: {"c2": (B, C2, H, W), ...} -> tuple of (B, 256, H, W).

    torchvision's network over c2 to c5 with its parameter names (`inner_blocks.0` takes c2), BatchNorm after every
    convolution. Level l has a stride of 2^l pixels. Blocks that no chosen level needs are neither run nor trained:
    they keep their initial weights without gradient, and their BatchNorm has counted no batch.
    """

    def __init__(self, in_channels: list[int], levels: Iterable[int]) -> None:
        super().__init__(in_channels, PYRAMID_CHANNELS, norm_layer=nn.BatchNorm2d)
        self.levels = tuple(sorted(set(levels)))
        if not self.levels or not set(self.levels) <= set(LEVELS):
            raise ValueError(f"pyramid levels are {self.levels}; expected one or more of {LEVELS}")
        for block, level in enumerate(LEVELS):
            self.inner_blocks[block].requires_grad_(level >= self.levels[0])
            self.layer_blocks[block].requires_grad_(level in self.levels)

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, ...]:
        maps: list[Tensor] = []
        above = None
        for level in range(LEVELS[-1], self.levels[0] - 1, -1):
            merged = self.inner_blocks[level - LEVELS[0]](features[f"c{level}"])
            if above is not None:
                merged = merged + F.interpolate(above, size=merged.shape[-2:], mode="nearest")
            if level in self.levels:
                maps.insert(0, self.layer_blocks[level - LEVELS[0]](merged))
            above = merged
        return tuple(maps)


class ConvHead(nn.Sequential):
    """1x1 convolution - BatchNorm - ReLU - 1x1 convolution: (B, in_dim, H, W) -> (B, out_dim, H, W).

    `MLP2d` of the official code, with its parameter names.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Conv2d(in_dim, hidden_dim, kernel_size=1)
        self.bn1 = nn.BatchNorm2d(hidden_dim)
        self.relu1 = nn.ReLU(inplace=True)
        self.linear2 = nn.Conv2d(hidden_dim, out_dim, kernel_size=1)
