"""Two views of held-out images -> how often a cell's nearest neighbour in feature space shows the same place."""

import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pixpro.data.views import View
from pixpro.method.encoder import Encoder
from pixpro.method.geometry import inside, positive_pairs
from pixpro.method.numerics import at_least_float32, batch_statistics, full_precision

TIE = 1e-6  # cosines closer than this to the best share the first place


class MatchingScore(NamedTuple):
    """Dense matching of a set of image pairs, means over the images whose views overlap."""

    accuracy: float  # share of cells whose nearest neighbour shows the same place, 0..1
    chance: float  # the same for a neighbour picked at random
    images: int  # images whose views overlap
    cells: int  # cells judged


def matched_cells(
    features1: Tensor, features2: Tensor, boxes1: Tensor, boxes2: Tensor, threshold: float = 0.7
) -> tuple[Tensor, Tensor, Tensor]:
    """For each cell of view 1: how right its nearest neighbour is, how right a random one, and if it counts.

    features1, features2: (B, C, H, W); boxes1, boxes2: (B, 4). All results are (B, N), the last one bool.
    A neighbour is right when its centre lies within `threshold` of the larger bin diagonal; neighbours at
    the same cosine share their rightness, so that features without content score chance. Cells inside view
    2 count.
    """
    size = (features1.shape[2], features1.shape[3])
    with full_precision(features1.device):
        cells1 = F.normalize(at_least_float32(features1), dim=1).flatten(2)
        cells2 = F.normalize(at_least_float32(features2), dim=1).flatten(2)
        cosine = torch.bmm(cells1.transpose(1, 2), cells2)
        nearest = (cosine >= cosine.amax(dim=2, keepdim=True) - TIE).float()
        positives = positive_pairs(boxes1, boxes2, size, threshold).float()
        right = (nearest * positives).sum(dim=2) / nearest.sum(dim=2)
    return right, positives.mean(dim=2), inside(boxes1, boxes2, size)


@torch.no_grad()
def matching_scores(
    encode: Callable[[Tensor], Mapping[str, Tensor]],
    pairs: tuple[View, View],
    *,
    batch_size: int = 32,
) -> dict[str, MatchingScore]:
    """A score for each named map that `encode` gives for a batch of views (B, 3, S, S) -> {name: (B, C, H, W)}."""
    sums: dict[str, list[Tensor]] = {}
    view1, view2 = pairs
    count = len(view1.box)
    # equal batches: a last one of a few images would have poor BatchNorm statistics
    bounds = torch.linspace(0, count, -(-count // batch_size) + 1).round().int().tolist()
    for start, stop in itertools.pairwise(bounds):
        part = slice(start, stop)
        maps1, maps2 = encode(view1.pixels[part]), encode(view2.pixels[part])
        for name, features in maps1.items():
            boxes1, boxes2 = view1.box[part].to(features.device), view2.box[part].to(features.device)
            right, chance, counts = matched_cells(features, maps2[name], boxes1, boxes2)
            cells = counts.sum(dim=1)
            means = [(values * counts).sum(dim=1) / cells.clamp(min=1) for values in (right, chance)]
            sums.setdefault(name, []).append(torch.stack([*means, (cells > 0).float(), cells.float()]).cpu())
    scores = {}
    for name, parts in sums.items():
        right, chance, images, cells = torch.cat(parts, dim=1).double().sum(dim=1).tolist()
        count = max(images, 1)
        scores[name] = MatchingScore(right / count, chance / count, int(images), int(cells))
    return scores


def encoder_matching(encoder: Encoder, pairs: tuple[View, View]) -> dict[str, MatchingScore]:
    """Scores of an encoder's "trunk" (what is transferred) and "projector" (what the loss sees), on its coarsest level.

    Runs on the encoder's device, in float32, with `batch_statistics`; leaves modes, buffers and generators
    alone.
    """
    device = next(encoder.parameters()).device

    def encode(pixels: Tensor) -> dict[str, Tensor]:
        features = encoder.features(pixels.to(device))
        return {"trunk": features[encoder.dense], "projector": encoder.project(features)[-1]}

    with batch_statistics(encoder), torch.autocast(device.type, enabled=False):
        return matching_scores(encode, pairs)
