"""A converted file against its checkpoint: the features of the trunk rebuilt from the file alone, in plain torch."""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from downstream.conversion.convert import Conversion, build_pyramid
from downstream.conversion.weights_file import read_weights
from pixpro.data.augment import MEAN, STD
from pixpro.errors import UserError
from pixpro.method.trunks import resnet_maps

LARGEST_DIFFERENCE = 1e-5

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
    """The levels of p5 to p2 that the weights can make, on res2 to res5 (detectron2/modeling/backbone/fpn.py)."""
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


def probe_image() -> Tensor:
    """A fixed image (1, 3, 96, 128) of coarse and fine structure, RGB, 0..255, whole numbers, float64."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 6, 8, generator=generator, dtype=torch.float64)
    fine = torch.rand(1, 3, 96, 128, generator=generator, dtype=torch.float64)
    image = 0.7 * F.interpolate(coarse, size=(96, 128), mode="bilinear") + 0.3 * fine
    return (image * 255).round()


@torch.no_grad()
def checkpoint_features(conversion: Conversion, arch: str, pixels: Tensor) -> dict[str, Tensor]:
    """res2 to res5, and the trained levels of a neck, of torchvision's modules with the checkpoint's weights.

    pixels: (B, 3, H, W), RGB, 0..255, float64.
    """
    model = torchvision.models.get_model(arch, weights=None).eval()
    model.load_state_dict({**model.state_dict(), **conversion.trunk})
    model = model.to(pixels.dtype)
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    features = {f"res{name[1]}": cells for name, cells in resnet_maps(model, (pixels / 255 - mean) / std).items()}
    if conversion.neck:
        pyramid = build_pyramid(arch, conversion.neck).eval()
        pyramid.load_state_dict({**pyramid.state_dict(), **conversion.neck})
        levels = pyramid.to(pixels.dtype)(dict(features))
        levels = {f"p{name[3]}": level for name, level in levels.items()}
        features |= {
            name: level for name, level in levels.items() if f"fpn_output{name[1]}.weight" in conversion.weights
        }
    return features


@torch.no_grad()
def verify(path: Path, conversion: Conversion, arch: str) -> dict[str, float]:
    """Relative difference per map of the trunk rebuilt from the file alone; UserError if one exceeds 1e-5."""
    file = read_weights(path)
    pixels = probe_image()
    weights = {name: torch.from_numpy(array).to(pixels.dtype) for name, array in file.weights.items()}
    rebuilt = trunk_features(
        weights,
        pixels,
        pixel_format=file.expected["INPUT.FORMAT"],
        pixel_mean=file.expected["MODEL.PIXEL_MEAN"],
        pixel_std=file.expected["MODEL.PIXEL_STD"],
        stride_in_1x1=file.expected["MODEL.RESNETS.STRIDE_IN_1X1"],
    )
    if conversion.neck:
        rebuilt |= pyramid_features(weights, rebuilt)
    original = checkpoint_features(conversion, arch, pixels)
    differences = {name: relative_difference(original[name], rebuilt[name]) for name in original}
    worst = max(differences, key=lambda name: differences[name])
    if differences[worst] > LARGEST_DIFFERENCE:
        raise UserError(
            f"the converted trunk is not the checkpoint's: {worst} differs by {differences[worst]:.1e} "
            f"(limit {LARGEST_DIFFERENCE:.0e}); nothing written"
        )
    return differences
