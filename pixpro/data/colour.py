"""Colour operations on batches of images in [0, 1] with one parameter per sample: x (B, 3, H, W), parameter (B,).

Equal to torchvision's functional operations on single float images, except `blur`, which is Pillow's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

RED, GREEN, BLUE = 0.2989, 0.587, 0.114  # torchvision's weights of a grey level


def _column(parameter: Tensor) -> Tensor:
    return parameter.view(-1, 1, 1, 1)


def luma(x: Tensor) -> Tensor:
    """Grey level (B, 1, H, W)."""
    red, green, blue = x.split(1, dim=1)
    return (red * RED).add_(green, alpha=GREEN).add_(blue, alpha=BLUE)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """x scaled."""
    return (x * _column(factor)).clamp_(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """x stretched about the mean of its grey level."""
    mean = luma(x).mean(dim=(1, 2, 3), keepdim=True)
    return torch.addcmul((1 - _column(factor)) * mean, x, _column(factor)).clamp_(0, 1)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """x stretched about its own grey."""
    return torch.addcmul((1 - _column(factor)) * luma(x), x, _column(factor)).clamp_(0, 1)


def hue(x: Tensor, shift: Tensor) -> Tensor:
    """x with its hue turned by `shift` of a full circle; value and chroma stay."""
    red, green, blue = x.split(1, dim=1)
    value = x.amax(dim=1, keepdim=True)
    chroma = value - x.amin(dim=1, keepdim=True)
    scale = chroma.clamp_min(torch.finfo(x.dtype).tiny).reciprocal_()
    sixths = torch.where(
        value == red,
        (green - blue) * scale,
        torch.where(value == green, (blue - red) * scale + 2, (red - green) * scale + 4),
    )
    # The distance of each channel from its own peak around the circle says how much chroma it loses.
    thirds = torch.arange(3, dtype=x.dtype, device=x.device).view(1, 3, 1, 1) / 3
    opposite = 0.5 - thirds  # a half turn from the peaks of R, G, B
    turn = (sixths / 6 + _column(shift)) + opposite
    lost = (turn - turn.round()).abs_().mul_(-6).add_(2).clamp_(0, 1)
    return value - chroma * lost


def grey(x: Tensor) -> Tensor:
    """x without colour, three equal channels."""
    return luma(x).expand_as(x)


def solarize(x: Tensor) -> Tensor:
    """x with its bright half inverted (8-bit levels from 128 on, counted as if rounded)."""
    return torch.minimum(x, 1 - x)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """x under Pillow's GaussianBlur(sigma): three box filters each way, edges replicated; 0 <= sigma <= 2."""
    weights = box_weights(sigma)
    for dim in (3, 3, 3, 2, 2, 2):
        x = _box(x, weights, dim)
    return x


def box_weights(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (B, 1, 1, 1) at distance 0, 1, 2 of the box whose threefold use has the variance sigma ** 2.

    The box has fractional edges: Gwosdek et al., Theoretical Foundations of Gaussian Convolution by Extended Box
    Filtering (2011), which Pillow follows.
    """
    variance = _column(sigma) ** 2 / 3
    whole = ((torch.sqrt(12 * variance + 1) - 1) / 2).floor()  # 0 or 1 up to sigma = 2
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    centre = 1 / (2 * (whole + part) + 1)
    edge = part * centre
    wide = whole > 0
    return centre, torch.where(wide, centre, edge), torch.where(wide, edge, torch.zeros_like(edge))


def _box(x: Tensor, weights: tuple[Tensor, Tensor, Tensor], dim: int) -> Tensor:
    """One box filter along a dimension."""
    size = x.shape[dim]
    padded = F.pad(x, (2, 2, 0, 0) if dim == 3 else (0, 0, 2, 2), mode="replicate")
    taps = [padded.narrow(dim, offset, size) for offset in range(5)]
    out = (taps[1] + taps[3]).mul_(weights[1]).addcmul_(x, weights[0])
    return out.addcmul_(taps[0] + taps[4], weights[2])
