"""Masks and a frozen trunk -> mean IoU of dense k-NN and of a dense linear probe."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from downstream.common.pictures import read_picture
from downstream.common.precision import sent
from downstream.probes.classifiers import fit_linear, knn_scores
from downstream.probes.frozen_trunk import normalised, resized
from downstream.segmentation.masks import VOID, read_mask
from downstream.segmentation.scores import confusion, mean_iou
from pixpro.errors import UserError

Pairs = list[tuple[Path, Path]]


def cell_labels(mask: Tensor, rows: int, columns: int, classes: int) -> tuple[Tensor, Tensor]:
    """What a grid of cells over a mask (H, W) covers: shares of the classes (N, K), and which cells count (N,) bool.

    A cell counts when a quarter of it or more is not void; the shares are among its pixels that are not.
    """
    known = mask != VOID
    planes = F.one_hot(torch.where(known, mask, 0), classes).permute(2, 0, 1) * known
    areas = F.adaptive_avg_pool2d(planes.float(), (rows, columns)).flatten(1).T
    covered = areas.sum(dim=1)
    return areas / covered.clamp(min=1e-9)[:, None], covered >= 0.25


def class_map(path: Path) -> Tensor:
    """Classes (H, W) int64 of a mask file, 255 for pixels that do not count."""
    return torch.from_numpy(read_mask(path).astype("int64"))


@torch.no_grad()
def image_cells(trunk: nn.Module, path: Path, shorter: int, device: torch.device) -> Tensor:
    """The trunk's map of the whole image (C, h, w); its shorter side is scaled to `shorter`, sides to 32 px."""
    pixels = read_picture(path)
    height, width = pixels.shape[1:]
    scale = shorter / min(height, width)
    rows, columns = (max(1, round(side * scale / 32)) for side in (height, width))
    image = normalised(resized(pixels, rows * 32, columns * 32))
    return trunk(sent(image[None], device))[0].float().cpu()


class DenseFeatureSet:
    """Every image's cells, computed once for all probes and seeds; full-size masks are read when they are needed."""

    def __init__(self, trunk: nn.Module, pairs: Pairs, shorter: int, device: torch.device) -> None:
        # in half precision: the maps of a data set such as VOC's take gigabytes
        self.cells = [image_cells(trunk, image, shorter, device).half() for image, _ in pairs]
        self.pairs, self.device = pairs, device

    def labelled_cells(self, classes: int, chosen: list[int], limit: int, seed: int) -> tuple[Tensor, Tensor]:
        """Features (n, C) and class shares (n, K), on the device, of at most `limit` cells that count of the chosen."""
        features, labels = [], []
        for index in chosen:
            cells = self.cells[index].float()
            shares, counts = cell_labels(class_map(self.pairs[index][1]), cells.shape[1], cells.shape[2], classes)
            features.append(cells.flatten(1).T[counts])
            labels.append(shares[counts])
        order = torch.randperm(sum(map(len, features)), generator=torch.Generator().manual_seed(seed))[:limit]
        return torch.cat(features)[order].to(self.device), torch.cat(labels)[order].to(self.device)


def count_classes(pairs: Pairs) -> int:
    """One more than the largest class in the masks, void aside."""
    known = [mask[mask != VOID] for mask in (class_map(path) for _, path in pairs)]
    largest = max((int(classes.max()) for classes in known if len(classes)), default=0)
    if largest < 1:
        raise UserError(f"the {len(pairs)} masks hold fewer than two classes (255 is void)")
    return largest + 1


def segmentation_score(predict: Callable[[Tensor], Tensor], test: DenseFeatureSet, classes: int) -> float:
    """Mean IoU over all pixels of the test images.

    predict: cells (n, C) -> class scores (n, K), on the set's device; they are interpolated to the mask's size.
    """
    counts = torch.zeros(classes, classes, dtype=torch.long, device=test.device)
    for cells, (_, mask_path) in zip(test.cells, test.pairs, strict=True):
        truth, cells = sent(class_map(mask_path), test.device), sent(cells, test.device)
        scores = predict(cells.float().flatten(1).T).T.reshape(1, classes, *cells.shape[1:])
        scores = F.interpolate(scores, size=tuple(truth.shape), mode="bilinear", align_corners=False)
        counts += confusion(truth, scores[0].argmax(dim=0), classes)
    return mean_iou(counts.cpu())


def dense_scores(
    train: DenseFeatureSet, test: DenseFeatureSet, classes: int, *, seed: int, limit: int = 20000
) -> dict[str, float]:
    """Mean IoU of dense k-NN and of the dense linear probe; the seed picks nine tenths of the training images."""
    chosen = torch.randperm(len(train.cells), generator=torch.Generator().manual_seed(seed))
    chosen = chosen[: max(1, round(0.9 * len(chosen)))].tolist()
    features, labels = train.labelled_cells(classes, chosen, limit, seed)
    if len(features) == 0:
        raise UserError("all pixels of the training masks are void")
    return {
        "dense k-NN": segmentation_score(partial(knn_scores, features, labels), test, classes),
        "dense linear": segmentation_score(fit_linear(features, labels, seed), test, classes),
    }
