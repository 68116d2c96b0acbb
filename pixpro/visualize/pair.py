"""One image -> two views of it as in training, with what a picture of them needs: crops, boxes and matched cells."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixpro.data.augment import MEAN, STD, augment
from pixpro.data.samples import draw_view
from pixpro.data.views import Distance, View, crop_box, crop_pixels
from pixpro.errors import UserError
from pixpro.images.decoding import BadImage, decode
from pixpro.method.geometry import cell_centers, cells_along, positive_pairs


@dataclass(frozen=True)
class Pair:
    """Two views of an image and which of their cells match."""

    image: np.ndarray  # (H, W, 3) uint8
    views: tuple[View, View]  # normalised pixels (1, 3, S, S), boxes (1, 4) in the units of the loss
    edges: tuple[Tensor, Tensor]  # boxes (1, 4) from edge to edge in pixels of the image
    cells: int  # cells along a side
    positives: np.ndarray  # (N, N) bool, rows are cells of view 1

    def centers(self, view: int) -> np.ndarray:
        """Centres of a view's cells in pixels of the image: (N, 2)."""
        return cell_centers(self.edges[view], self.cells)[0].numpy()


def busiest_cell(positives: np.ndarray) -> int:
    """The cell of view 1 to explain: of those with most matches (N, N), the one closest to the view's middle."""
    cells = round(len(positives) ** 0.5)
    row, column = np.divmod(np.arange(cells**2), cells)
    middle = (cells - 1) / 2
    return int(np.lexsort((np.hypot(row - middle, column - middle), -positives.sum(1)))[0])


def make_pair(path: str | Path, **options: Any) -> Pair:
    """The `pair_of` an image file and its name. Raises UserError for a file that is missing or not an image."""
    path = Path(path)
    try:
        image = decode(path.read_bytes())
    except (OSError, BadImage) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path}: cannot be read as an image ({reason})") from error
    return pair_of(image, path.name, **options)


def pair_of(
    image: Tensor,
    name: str,
    *,
    image_size: int = 224,
    cells: int | None = None,
    seed: int = 0,
    distance: Distance = "image",
    threshold: float = 0.7,
) -> Pair:
    """Two views of the image (3, H, W) uint8 by the training recipe, drawn from the seed and a name alone.

    cells: along a side of a view's feature map; one for 32 pixels unless given.
    """
    height, width = image.shape[1:]
    views, edges = [], []
    for role in (0, 1):
        rng = random.Random(f"pair {seed} {name} {role}")
        crop, flip, box, colour = draw_view(rng, role, height, width, distance)
        pixels = crop_pixels(image, crop, flip, image_size).permute(2, 0, 1)[None]
        views.append(View(augment(pixels, torch.tensor([colour], dtype=torch.float32)), torch.tensor([box])))
        # `pixel` boxes count from the centre of the first pixel; drawings count from its edge
        edges.append(torch.tensor([crop_box(crop, height, width, flip, "pixel")]) + 0.5)
    cells = cells or cells_along(image_size)
    positives = positive_pairs(views[0].box, views[1].box, cells, threshold)[0].numpy()
    return Pair(image.permute(1, 2, 0).numpy(), (views[0], views[1]), (edges[0], edges[1]), cells, positives)


def displayable(pixels: Tensor) -> np.ndarray:
    """Normalised pixels (3, H, W) as an ordinary picture (H, W, 3) uint8."""
    colours = pixels.detach().float().cpu() * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    return (colours.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
