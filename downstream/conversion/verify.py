"""A converted file against its checkpoint: the features of the trunk rebuilt from the file alone."""

from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from downstream.conversion.convert import Conversion, build_pyramid
from downstream.conversion.trunk import pyramid_features, relative_difference, trunk_features
from downstream.conversion.weights_file import read_weights
from pixpro.errors import UserError

LARGEST_DIFFERENCE = 1e-5


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
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = model.maxpool(model.relu(model.bn1(model.conv1((pixels / 255 - mean) / std))))
    features = {}
    for name, stage in zip(("res2", "res3", "res4", "res5"), ("layer1", "layer2", "layer3", "layer4"), strict=True):
        x = features[name] = getattr(model, stage)(x)
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
    """Relative difference per map between the trunk rebuilt from the file alone and the checkpoint's.

    Raises UserError if one exceeds 1e-5.
    """
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
