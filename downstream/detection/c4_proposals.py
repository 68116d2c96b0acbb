"""The first stage of a detector: feature maps -> proposals, with the losses and settings of detectron2.

The C4 detector has one map with anchors of five sizes, the FPN detector five maps with anchors of one size each.

torchvision's region proposal network differs from detectron2's in six places; each is overridden here: anchors
(rounded, ratio by ratio), box loss (smooth L1), loss normaliser (sampled anchors), NMS order (by probability, where
two saturated logits tie), the smallest box, and how many boxes are kept.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import boxes as box_ops

from downstream.common.precision import full_precision

Levels = tuple[tuple[int, tuple[int, ...]], ...]  # of each map: its stride in input pixels, the sizes of its anchors

STRIDE = 16  # of res4
ANCHOR_SIZES = (32, 64, 128, 256, 512)
ANCHOR_RATIOS = (0.5, 1.0, 2.0)  # height / width
C4_LEVELS: Levels = ((STRIDE, ANCHOR_SIZES),)


class CellAnchors(nn.Module):
    """Anchors of every size and ratio around the corner of each cell; follows DefaultAnchorGenerator, offset 0."""

    def __init__(self, levels: Levels = C4_LEVELS) -> None:
        super().__init__()
        self.strides = tuple(stride for stride, _ in levels)
        for number, (_, sizes) in enumerate(levels):
            self.register_buffer(f"boxes{number}", centred_boxes(sizes), persistent=False)

    def forward(self, images: ImageList, features: list[Tensor]) -> list[Tensor]:
        """Anchors of every image, each (cells x anchors of a cell, 4) in pixels, map by map and cell by cell."""
        parts = []
        for number, (stride, cells) in enumerate(zip(self.strides, features, strict=True)):
            boxes = getattr(self, f"boxes{number}")
            height, width = cells.shape[-2:]
            y = torch.arange(height, device=boxes.device, dtype=torch.float32) * stride
            x = torch.arange(width, device=boxes.device, dtype=torch.float32) * stride
            y, x = torch.meshgrid(y, x, indexing="ij")
            corners = torch.stack((x, y, x, y), dim=-1).reshape(-1, 1, 4)
            parts.append((corners + boxes).reshape(-1, 4))
        anchors = torch.cat(parts)
        return [anchors for _ in images.image_sizes]


def centred_boxes(sizes: tuple[int, ...]) -> Tensor:
    """(sizes x ratios, 4) boxes around 0, size by size, not rounded."""
    boxes = []
    for size in sizes:
        for ratio in ANCHOR_RATIOS:
            width = math.sqrt(size**2 / ratio)
            height = ratio * width
            boxes.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(boxes)


class FloatHead(RPNHead):
    """torchvision's head, its last layers in float32: in bf16, scores tie and boxes are off by up to 2 px at 1000."""

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Of each map the logits and the box offsets of its anchors."""
        features = [self.conv(cells) for cells in maps]
        with full_precision(maps[0].device):
            features = [cells.float() for cells in features]
            return [self.cls_logits(cells) for cells in features], [self.bbox_pred(cells) for cells in features]


class ProposalNetwork(RegionProposalNetwork):
    """Region proposals from maps, and the two losses that train them (modeling/proposal_generator/rpn.py)."""

    def __init__(
        self, channels: int, *, pre_nms: tuple[int, int], post_nms: tuple[int, int], levels: Levels = C4_LEVELS
    ) -> None:
        """channels: of each map; pre_nms, post_nms: boxes kept before NMS (of each map) and after it (of all), in
        training and in testing.
        """
        super().__init__(
            CellAnchors(levels),
            FloatHead(channels, len(levels[0][1]) * len(ANCHOR_RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": pre_nms[0], "testing": pre_nms[1]},
            post_nms_top_n={"training": post_nms[0], "testing": post_nms[1]},
            nms_thresh=0.7,
        )

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Best boxes of every image and their logits, most object-like first (find_top_rpn_proposals)."""
        best, orders, start = [], [], 0
        for of_level in objectness.detach().reshape(proposals.shape[0], -1).split(num_anchors_per_level, dim=1):
            values, order = of_level.topk(min(self.pre_nms_top_n(), of_level.shape[1]), dim=1)
            best.append(values)
            orders.append(order + start)
            start += of_level.shape[1]
        logits, order = torch.cat(best, dim=1), torch.cat(orders, dim=1)
        of = torch.cat([torch.full_like(values[0], i, dtype=torch.int64) for i, values in enumerate(best)])
        kept_boxes, kept_logits = [], []
        for boxes, scores, picked, size in zip(proposals, logits, order, image_shapes, strict=True):
            boxes = boxes[picked]
            finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores)
            boxes, scores, level = box_ops.clip_boxes_to_image(boxes[finite], size), scores[finite], of[finite]
            filled = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            boxes, scores, level = boxes[filled], scores[filled], level[filled]
            keep = box_ops.batched_nms(boxes.float(), scores, level, self.nms_thresh)[: self.post_nms_top_n()]
            kept_boxes.append(boxes[keep])
            kept_logits.append(scores[keep])
        return kept_boxes, kept_logits

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Objectness and box loss over the sampled anchors, both divided by 256 anchors per image."""
        positive, negative = (torch.cat(masks).bool() for masks in self.fg_bg_sampler(labels))
        sampled = positive | negative
        normalizer = self.fg_bg_sampler.batch_size_per_image * len(labels)
        targets = torch.cat(regression_targets)[positive]
        box_loss = F.l1_loss(pred_bbox_deltas[positive], targets, reduction="sum")
        object_loss = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="sum"
        )
        return object_loss / normalizer, box_loss / normalizer
