"""An encoder and a few pairs of views -> the picture that TensorBoard shows of them during training."""

import numpy as np
import torch
from torch import Tensor

from pixpro.data.views import View
from pixpro.method.encoder import Encoder
from pixpro.method.geometry import cell_centers, positive_pairs
from pixpro.method.numerics import batch_statistics
from pixpro.visualize.feature_panels import cosines, seen_panel
from pixpro.visualize.pair import busiest_cell, displayable
from pixpro.visualize.pair_panels import shared_colours, view_panels
from pixpro.visualize.sheet import sheet

SEEN = 16  # pairs that the network gets, for the sake of BatchNorm's statistics; a few of them are drawn
HEADING = "Same colour: same place. Right: what view 2 holds that is like the framed cell of view 1"


@torch.no_grad()
def pairs_picture(encoder: Encoder, pairs: tuple[View, View], threshold: float) -> Tensor:
    """The first overlapping pairs, their matched cells, and what the trunk takes for one of them: (3, H, W) uint8.

    Leaves the encoder's modes and buffers alone, and all generators.
    """
    device = next(encoder.parameters()).device
    view1, view2 = (View(view.pixels[:SEEN], view.box[:SEEN]) for view in pairs)
    with batch_statistics(encoder), torch.autocast(device.type, enabled=False):
        maps = [encoder.features(view.pixels.to(device))[encoder.dense] for view in (view1, view2)]
    return pairs_image(view1, view2, maps[0], maps[1], threshold=threshold)


def pairs_image(
    view1: View, view2: View, maps1: Tensor, maps2: Tensor, *, threshold: float = 0.7, limit: int = 3
) -> Tensor:
    """Up to `limit` pairs, overlapping ones first, one below the other: (3, H, W) uint8.

    view1, view2: normalised pixels (B, 3, S, S) and boxes (B, 4); maps1, maps2: their features (B, C, h, h).
    """
    size = maps1.shape[2]
    boxes = [view.box.float().cpu() for view in (view1, view2)]
    positives = positive_pairs(boxes[0], boxes[1], size, threshold).numpy()
    centers = [cell_centers(box, size).numpy() for box in boxes]
    rows = []
    for i in np.argsort(~positives.any((1, 2)), kind="stable")[:limit]:
        only1, only2 = (
            View(view.pixels[i : i + 1], box[i : i + 1]) for view, box in zip((view1, view2), boxes, strict=True)
        )
        cell = busiest_cell(positives[i])
        colours = shared_colours(centers[0][i], centers[1][i], positives[i])
        values = np.nan_to_num(cosines(maps1[i : i + 1], maps2[i : i + 1])[cell])
        seen = seen_panel(displayable(view2.pixels[i]), values, positives[i][cell])
        rows.append([*view_panels((only1, only2), colours, positives[i], cell), seen])
    return torch.from_numpy(np.array(sheet(rows, HEADING, dpi=100))).permute(2, 0, 1)
