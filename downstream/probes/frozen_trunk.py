"""Trunks to be measured: frozen, from a checkpoint or untrained, and the feature maps they give for image files."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import ResNet

from downstream.common.pictures import read_picture
from downstream.common.precision import sent
from pixpro.data.augment import MEAN, STD
from pixpro.data.cores import available_cores
from pixpro.method.trunks import TRUNK, OneMap, new_backbone


def trunk_only(model: nn.Module, level: int = 5) -> nn.Module:
    """A backbone's map of one level, frozen: (B, 3, H, W) -> (B, C, H / 2^level, W / 2^level), level 2 to 5."""
    if not isinstance(model, ResNet):
        return OneMap(model, f"c{level}").eval().requires_grad_(False)
    names = [name for name in TRUNK if not name.startswith("layer") or int(name[-1]) < level]
    return nn.Sequential(OrderedDict((name, getattr(model, name)) for name in names)).eval().requires_grad_(False)


def untrained_trunk(arch: str, seed: int, level: int = 5) -> nn.Module:
    """A trunk as pre-training starts from, its weights drawn from the seed; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return trunk_only(new_backbone(arch), level)


def normalised(pixels: Tensor) -> Tensor:
    """(..., 3, H, W) in 0..255 -> what networks take."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (pixels.float() / 255 - mean) / std


def resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """(3, H, W) uint8 -> (3, height, width) float in 0..255, antialiased."""
    images = pixels[None].float()
    return F.interpolate(images, size=(height, width), mode="bilinear", antialias=True, align_corners=False)[0]


def central_view(pixels: Tensor, size: int) -> Tensor:
    """The usual test view, normalised (3, size, size): shorter side to size * 8 / 7, central square."""
    height, width = pixels.shape[1:]
    scale = round(size * 8 / 7) / min(height, width)
    pixels = resized(pixels, max(size, round(height * scale)), max(size, round(width * scale)))
    top, left = (pixels.shape[1] - size) // 2, (pixels.shape[2] - size) // 2
    return normalised(pixels[:, top : top + size, left : left + size])


def central_views(paths: Sequence[Path], size: int, batch_size: int = 32) -> Iterator[Tensor]:
    """Batches (B, 3, size, size) of the central views of image files, read by all cores."""
    with ThreadPoolExecutor(available_cores()) as pool:
        for start in range(0, len(paths), batch_size):
            part = paths[start : start + batch_size]
            yield torch.stack(list(pool.map(lambda path: central_view(read_picture(path), size), part)))


@torch.no_grad()
def pooled_features(trunk: nn.Module, paths: Sequence[Path], size: int, device: torch.device) -> Tensor:
    """The mean over the map of each image's central view: (number of files, C) on the CPU."""
    batches = (sent(batch, device) for batch in central_views(paths, size))
    return torch.cat([trunk(batch).mean(dim=(2, 3)).float().cpu() for batch in batches])
