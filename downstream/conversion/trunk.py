"""Weights under detectron2's names -> features in plain torch, to check a converted file without detectron2."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]


def conv_norm(x: Tensor, weights: Weights, name: str, *, stride: int = 1) -> Tensor:
    """A convolution and, where the weights have one, the BatchNorm after it, with stored statistics."""
    kernel = weights[f"{name}.weight"]
    groups = x.shape[1] // kernel.shape[1]
    x = F.conv2d(x, kernel, weights.get(f"{name}.bias"), stride, padding=kernel.shape[-1] // 2, groups=groups)
    if f"{name}.norm.weight" not in weights:
        return x
    norm = {part: weights[f"{name}.norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias")}
    return F.batch_norm(x, **norm)


def block(x: Tensor, weights: Weights, name: str, *, stride: int, stride_in_1x1: bool) -> Tensor:
    """A basic block, or a bottleneck with its stride in the first 1x1 or in the 3x3 convolution."""
    shortcut = x
    if f"{name}.shortcut.weight" in weights:
        shortcut = conv_norm(x, weights, f"{name}.shortcut", stride=stride)
    if f"{name}.conv3.weight" in weights:
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        x = F.relu(conv_norm(x, weights, f"{name}.conv1", stride=first))
        x = F.relu(conv_norm(x, weights, f"{name}.conv2", stride=second))
        x = conv_norm(x, weights, f"{name}.conv3")
    else:
        x = F.relu(conv_norm(x, weights, f"{name}.conv1", stride=stride))
        x = conv_norm(x, weights, f"{name}.conv2")
    return F.relu(x + shortcut)


def trunk_features(
    weights: Weights,
    pixels: Tensor,
    *,
    pixel_format: str,
    pixel_mean: tuple[float, ...],
    pixel_std: tuple[float, ...],
    stride_in_1x1: bool,
) -> dict[str, Tensor]:
    """res2 to res5 of detectron2's ResNet: maps of 1/4 to 1/32 of the image's side.

    pixels: (B, 3, H, W), RGB, 0..255; turned into `pixel_format` first, mean and std are in that order.
    Follows detectron2/modeling/backbone/resnet.py and GeneralizedRCNN.preprocess_image.
    """
    if pixel_format == "BGR":
        pixels = pixels.flip(1)
    x = (pixels - pixels.new_tensor(pixel_mean).view(3, 1, 1)) / pixels.new_tensor(pixel_std).view(3, 1, 1)
    x = F.relu(conv_norm(x, weights, "stem.conv1", stride=2))
    x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    features = {}
    for stage in ("res2", "res3", "res4", "res5"):
        blocks = sorted({int(name.split(".")[1]) for name in weights if name.startswith(f"{stage}.")})
        for index in blocks:
            stride = 2 if index == 0 and stage != "res2" else 1
            x = block(x, weights, f"{stage}.{index}", stride=stride, stride_in_1x1=stride_in_1x1)
        features[stage] = x
    return features


def pyramid_features(weights: Weights, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The levels of p5 to p2 that the weights can make, of detectron2's FPN on the trunk's res2 to res5.

    Follows detectron2/modeling/backbone/fpn.py.
    """
    pyramid = {}
    above = None
    for level in (5, 4, 3, 2):
        if f"fpn_lateral{level}.weight" not in weights:
            break
        merged = conv_norm(features[f"res{level}"], weights, f"fpn_lateral{level}")
        if above is not None:
            merged = merged + F.interpolate(above, scale_factor=2.0, mode="nearest")
        if f"fpn_output{level}.weight" in weights:
            pyramid[f"p{level}"] = conv_norm(merged, weights, f"fpn_output{level}")
        above = merged
    return pyramid


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """||ours - theirs|| / ||ours||; 0 where both vanish, inf where only ours does or a value is not finite."""
    difference, size = torch.linalg.vector_norm(ours - theirs), torch.linalg.vector_norm(ours)
    if not torch.isfinite(difference) or not torch.isfinite(size):
        return float("inf")
    if size == 0:
        return 0.0 if difference == 0 else float("inf")
    return (difference / size).item()
