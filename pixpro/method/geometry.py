"""Which cells of two views show the same place: boxes -> cell centres -> distances -> positive pairs.

Everything here works in the units of the boxes it is given (`views.py` decides them) and in their precision.
Follows `regression_loss` of the official code (zdaxie/PixPro, contrast/models/PixPro.py).
"""

import torch
from torch import Tensor

Size = int | tuple[int, int]


def height_width(size: Size) -> tuple[int, int]:
    """(H, W) of a feature map given as one number (square) or as a pair."""
    return (size, size) if isinstance(size, int) else size


def cells_along(side: int, stride: int = 32) -> int:
    """Cells along a side of a feature map of an image whose side is so many pixels: rounded up, as convolutions do."""
    return -(-side // stride)


def bin_sizes(boxes: Tensor, size: Size) -> Tensor:
    """Width and height of one cell: (B, 2); the width is negative when the view was flipped."""
    height, width = height_width(size)
    # Filled on the device: a tensor made of Python numbers would be copied there, and the host would wait for it.
    cells = torch.stack((boxes.new_full((), width), boxes.new_full((), height)))
    return (boxes[:, 2:] - boxes[:, :2]) / cells


def cell_centers(boxes: Tensor, size: Size) -> Tensor:
    """Image coordinates of the centres of a grid of cells laid over each box.

    boxes: (B, 4) as x0, y0, x1, y1; x0 > x1 when the view was flipped.
    size: S for an S x S grid, or (H, W).
    Returns (B, H * W, 2) as x, y, row by row like `features.flatten(2)`.
    """
    height, width = height_width(size)
    columns = torch.arange(width, dtype=boxes.dtype, device=boxes.device) + 0.5
    rows = torch.arange(height, dtype=boxes.dtype, device=boxes.device) + 0.5
    bins = bin_sizes(boxes, size)
    x = columns * bins[:, :1] + boxes[:, :1]
    y = rows * bins[:, 1:] + boxes[:, 1:2]
    grid_x = x[:, None, :].expand(-1, height, -1)
    grid_y = y[:, :, None].expand(-1, -1, width)
    return torch.stack((grid_x, grid_y), dim=-1).flatten(1, 2)


def pair_distances(boxes1: Tensor, boxes2: Tensor, size: Size) -> Tensor:
    """Distances between the cells of two views: (B, N, N), in units of the larger of the two bin diagonals.

    Rows are cells of view 1, columns cells of view 2. Subtracts and takes norms: `torch.cdist` may switch to a
    matmul form that flips borderline pairs. Two zero-size boxes give NaN, which no threshold accepts.
    """
    centers1, centers2 = cell_centers(boxes1, size), cell_centers(boxes2, size)
    diagonal = torch.maximum(
        torch.linalg.vector_norm(bin_sizes(boxes1, size), dim=1),
        torch.linalg.vector_norm(bin_sizes(boxes2, size), dim=1),
    )
    x = centers1[:, :, None, 0] - centers2[:, None, :, 0]
    y = centers1[:, :, None, 1] - centers2[:, None, :, 1]
    return (x.square_() + y.square_()).sqrt_() / diagonal[:, None, None]


@torch.no_grad()
def positive_pairs(boxes1: Tensor, boxes2: Tensor, size: Size, threshold: float = 0.7) -> Tensor:
    """True where two cells show the same place: (B, N, N) bool, N = H * W.

    boxes1, boxes2: (B, 4) as x0, y0, x1, y1 of the two views of each image, in the same units.
    size: S for an S x S map, or (H, W).
    threshold: largest distance, exclusive, in units of the larger of the two bin diagonals.
    Rows are cells of view 1, columns cells of view 2, both row by row like `features.flatten(2)`.
    """
    return pair_distances(boxes1, boxes2, size) < threshold


@torch.no_grad()
def inside(boxes1: Tensor, boxes2: Tensor, size: Size) -> Tensor:
    """True for each cell of view 1 whose centre lies inside view 2: (B, N) bool, borders included."""
    centers = cell_centers(boxes1, size)
    lowest = torch.minimum(boxes2[:, None, :2], boxes2[:, None, 2:])
    highest = torch.maximum(boxes2[:, None, :2], boxes2[:, None, 2:])
    return ((centers >= lowest) & (centers <= highest)).all(dim=-1)
