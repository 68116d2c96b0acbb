"""The second stage of a detector: features + proposals -> classes and boxes; and the C4 detector's parts of it.

With `RegionPool` and `Res5` this is detectron2's Res5ROIHeads with the extra BatchNorm after res5
(`Res5ROIHeadsExtraNorm`), with those of fpn_heads.py its StandardROIHeads. What torchvision does
otherwise is overridden: RoIAlign (not aligned, 2 x 2 samples), box loss (smooth L1), the initial predictor, and
boxes thinner than 0.01 px, which it drops before NMS. Class 0 is the background, as in torchvision.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import boxes as box_ops
from torchvision.ops import roi_align

from downstream.common.precision import full_precision
from downstream.detection.c4_proposals import STRIDE


class RegionPool(nn.Module):
    """14 x 14 features of every region: RoIAlign, aligned, as many samples per bin as the bin has cells."""

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], image_sizes: list[tuple[int, int]]) -> Tensor:
        """(regions, C, 14, 14) from the one map in features and boxes in pixels."""
        (res4,) = features.values()
        return roi_align(res4, boxes, 14, spatial_scale=1 / STRIDE, sampling_ratio=0, aligned=True)


class Res5(nn.Module):
    """One vector per region: res5, the extra BatchNorm, mean over the region."""

    def __init__(self, layer4: nn.Module, channels: int) -> None:
        super().__init__()
        self.layer4 = layer4
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, regions: Tensor) -> Tensor:
        """(regions, C) from (regions, C / 2, 14, 14)."""
        return self.norm(self.layer4(regions)).mean(dim=(2, 3))


class Predictor(nn.Module):
    """Class scores and one box per class for every region vector (FastRCNNOutputLayers); in float32, as boxes need."""

    def __init__(self, channels: int, num_classes: int) -> None:
        """num_classes: without the background."""
        super().__init__()
        self.cls_score = nn.Linear(channels, num_classes + 1)
        self.bbox_pred = nn.Linear(channels, 4 * (num_classes + 1))
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        nn.init.zeros_(self.cls_score.bias)
        nn.init.zeros_(self.bbox_pred.bias)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (regions, classes + 1) and box offsets (regions, 4 * (classes + 1)), background first."""
        with full_precision(vectors.device):
            vectors = vectors.float()
            return self.cls_score(vectors), self.bbox_pred(vectors)


class RegionHeads(RoIHeads):
    """Detections from proposals, or in training the two losses of the second stage."""

    def __init__(
        self,
        pool: nn.Module,
        head: nn.Module,
        predictor: Predictor,
        masks: nn.Module | None = None,
        *,
        regions_per_image: int,
    ) -> None:
        """pool, head: features + boxes -> maps of the regions -> a vector for each. masks: fpn_heads.py's, or none."""
        super().__init__(
            pool,
            head,
            predictor,
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=regions_per_image,
            positive_fraction=0.25,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
            score_thresh=0.05,
            nms_thresh=0.5,
            detections_per_img=100,
        )
        self.masks = masks

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections (empty in training) and losses (empty in testing)."""
        if self.training:
            proposals, matches, labels, box_targets = self.select_training_samples(proposals, targets)
        scores, offsets = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))
        if self.training:
            losses = region_losses(scores, offsets, torch.cat(labels), torch.cat(box_targets))
            if self.masks:
                losses["loss_mask"] = self.masks.loss(features, proposals, labels, matches, targets, image_shapes)
            return [], losses
        found = self.detections(scores, offsets, proposals, image_shapes)
        return self.masks.add_to(found, features, image_shapes) if self.masks else found, {}

    def detections(
        self, scores: Tensor, offsets: Tensor, proposals: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        """Per image `boxes`, `scores`, `labels`, best first (fast_rcnn_inference_single_image)."""
        counts = [len(boxes) for boxes in proposals]
        # torchvision leaves its boxes flat when there is no region at all
        all_boxes = self.box_coder.decode(offsets, proposals).reshape(*scores.shape, 4).split(counts)
        results = []
        for boxes, probs, size in zip(all_boxes, F.softmax(scores, -1).split(counts), image_shapes, strict=True):
            finite = torch.isfinite(boxes).flatten(1).all(dim=1) & torch.isfinite(probs).all(dim=1)
            boxes, probs = box_ops.clip_boxes_to_image(boxes[finite], size)[:, 1:], probs[finite, 1:]
            region, label = torch.where(probs > self.score_thresh)
            boxes, probs = boxes[region, label], probs[region, label]
            keep = box_ops.batched_nms(boxes.float(), probs, label, self.nms_thresh)[: self.detections_per_img]
            keep = keep[(boxes[keep, 2:] > boxes[keep, :2]).all(dim=1)]  # after NMS, where empty ones took part
            results.append({"boxes": boxes[keep], "scores": probs[keep], "labels": label[keep] + 1})
        return results


def region_losses(scores: Tensor, offsets: Tensor, labels: Tensor, box_targets: Tensor) -> dict[str, Tensor]:
    """Cross-entropy over all regions, and L1 of the foreground's boxes divided by the number of all regions."""
    foreground = torch.where(labels > 0)[0]
    boxes = offsets.reshape(len(offsets), -1, 4)[foreground, labels[foreground]]
    box_loss = F.l1_loss(boxes, box_targets[foreground], reduction="sum") / max(labels.numel(), 1)
    return {"loss_classifier": F.cross_entropy(scores, labels), "loss_box_reg": box_loss}
