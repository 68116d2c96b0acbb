"""The first stage of the C4 detector: res4 features -> proposals, with the losses and settings of detectron2.

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

STRIDE = 16  # input pixels per cell of res4
ANCHOR_SIZES = (32, 64, 128, 256, 512)
ANCHOR_RATIOS = (0.5, 1.0, 2.0)  # height / width


class CellAnchors(nn.Module):
    """15 anchors around the corner of every res4 cell; follows DefaultAnchorGenerator, offset 0."""

    def __init__(self) -> None:
        super().__init__()
        boxes = []
        for size in ANCHOR_SIZES:
            for ratio in ANCHOR_RATIOS:
                width = math.sqrt(size**2 / ratio)
                height = ratio * width
                boxes.append([-width / 2, -height / 2, width / 2, height / 2])
        self.register_buffer("boxes", torch.tensor(boxes), persistent=False)

    def forward(self, images: ImageList, features: list[Tensor]) -> list[Tensor]:
        """Anchors of every image, each (H * W * 15, 4) in pixels, cell by cell."""
        height, width = features[0].shape[-2:]
        y = torch.arange(height, device=self.boxes.device, dtype=torch.float32) * STRIDE
        x = torch.arange(width, device=self.boxes.device, dtype=torch.float32) * STRIDE
        y, x = torch.meshgrid(y, x, indexing="ij")
        corners = torch.stack((x, y, x, y), dim=-1).reshape(-1, 1, 4)
        anchors = (corners + self.boxes).reshape(-1, 4)
        return [anchors for _ in images.image_sizes]


class ProposalNetwork(RegionProposalNetwork):
    """Region proposals from res4, and the two losses that train them (modeling/proposal_generator/rpn.py)."""

    def __init__(self, channels: int, *, pre_nms: tuple[int, int], post_nms: tuple[int, int]) -> None:
        """channels: of res4; pre_nms, post_nms: boxes kept before and after NMS, in training and in testing."""
        super().__init__(
            CellAnchors(),
            RPNHead(channels, len(ANCHOR_SIZES) * len(ANCHOR_RATIOS)),
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
        logits = objectness.detach().reshape(proposals.shape[0], -1)
        logits, order = logits.topk(min(self.pre_nms_top_n(), logits.shape[1]), dim=1)
        kept_boxes, kept_logits = [], []
        for boxes, scores, picked, size in zip(proposals, logits, order, image_shapes, strict=True):
            boxes = boxes[picked]
            finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores)
            boxes, scores = box_ops.clip_boxes_to_image(boxes[finite], size), scores[finite]
            filled = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            boxes, scores = boxes[filled], scores[filled]
            level = torch.zeros_like(scores, dtype=torch.int64)
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
