"""The FPN detector's regions: pooled from the level that suits their size; box head of 4 convolutions, mask head.

These are detectron2's ROIPooler, FastRCNNConvFCHead (4conv1fc) and MaskRCNNConvUpsampleHead, with BatchNorm.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

STRIDES = (4, 8, 16, 32)  # of p2 to p5
CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4  # a region of this side is read from this level


class LevelPool(nn.Module):
    """size x size features of every region, from p2 to p5: RoIAlign, aligned, with adaptive sampling."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], image_sizes: list[tuple[int, int]]) -> Tensor:
        """(regions, C, size, size) from the maps p2 to p5 and boxes in pixels."""
        maps = [features[f"p{level}"] for level in range(2, 6)]
        flat = torch.cat(boxes)
        image = torch.cat([flat.new_full((len(part), 1), number) for number, part in enumerate(boxes)])
        regions, level = torch.cat((image, flat), dim=1), level_of(flat)
        pooled = flat.new_zeros(len(flat), maps[0].shape[1], self.size, self.size, dtype=maps[0].dtype)
        for number, (cells, stride) in enumerate(zip(maps, STRIDES, strict=True)):
            chosen = torch.where(level == number)[0]
            part = roi_align(cells, regions[chosen], self.size, 1 / stride, sampling_ratio=0, aligned=True)
            pooled = pooled.index_put((chosen,), part.to(pooled.dtype))
        return pooled


def level_of(boxes: Tensor) -> Tensor:
    """The place in p2 to p5 of the level that each box (n, 4) is read from (assign_boxes_to_levels)."""
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    level = torch.floor(CANONICAL_LEVEL + torch.log2(side / CANONICAL_SIDE + 1e-8))
    return level.clamp(min=2, max=1 + len(STRIDES)).long() - 2


def conv_norm(channels: int, out: int) -> nn.Sequential:
    """A 3 x 3 convolution, BatchNorm, ReLU; initialised as c2_msra_fill."""
    convolution = nn.Conv2d(channels, out, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True))


class BoxHead(nn.Module):
    """One vector of 1024 per region: four convolutions and a linear layer."""

    def __init__(self, channels: int = 256, size: int = 7, width: int = 1024) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(conv_norm(channels, channels) for _ in range(4)))
        self.fc = nn.Linear(channels * size * size, width)
        nn.init.kaiming_uniform_(self.fc.weight, a=1)
        nn.init.zeros_(self.fc.bias)

    def forward(self, regions: Tensor) -> Tensor:
        return F.relu(self.fc(self.convs(regions).flatten(1)))


class MaskHead(nn.Module):
    """28 x 28 logits for each class and region, the loss that trains them, and masks for detections."""

    def __init__(self, num_classes: int, channels: int = 256) -> None:
        """num_classes: without the background."""
        super().__init__()
        self.pool = LevelPool(14)
        self.convs = nn.Sequential(*(conv_norm(channels, channels) for _ in range(4)))
        self.deconv = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.predictor = nn.Conv2d(channels, num_classes, 1)
        nn.init.kaiming_normal_(self.deconv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.deconv.bias)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    def forward(self, regions: Tensor) -> Tensor:
        """(regions, classes, 28, 28) in float32 from (regions, C, 14, 14)."""
        return self.predictor(F.relu(self.deconv(self.convs(regions)))).float()

    def loss(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        labels: list[Tensor],
        matches: list[Tensor],
        targets: list[dict[str, Tensor]],
        image_sizes: list[tuple[int, int]],
    ) -> Tensor:
        """Mean cross-entropy of the pixels of the foreground regions' masks, of their own class alone.

        labels, matches: of each proposal its class, 0 for background, and its object; targets: `masks` (n, H, W).
        """
        foreground = [torch.where(of_image > 0)[0] for of_image in labels]
        boxes = [part[chosen] for part, chosen in zip(proposals, foreground, strict=True)]
        logits = self(self.pool(features, boxes, image_sizes))
        if not len(logits):
            return logits.sum() * 0
        truth = torch.cat(
            [
                cropped(target["masks"][match[chosen]], part, logits.shape[-1])
                for target, match, chosen, part in zip(targets, matches, foreground, boxes, strict=True)
            ]
        )
        label = torch.cat([of_image[chosen] for of_image, chosen in zip(labels, foreground, strict=True)])
        own = logits[torch.arange(len(logits), device=logits.device), label - 1]
        return F.binary_cross_entropy_with_logits(own, truth.to(own.dtype))

    def add_to(
        self, found: list[dict[str, Tensor]], features: dict[str, Tensor], image_sizes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        """The detections with `masks` (n, 28, 28), probabilities inside their boxes."""
        logits = self(self.pool(features, [result["boxes"] for result in found], image_sizes))
        label = torch.cat([result["labels"] for result in found])
        own = logits[torch.arange(len(logits), device=logits.device), label - 1].sigmoid()
        parts = own.split([len(result["boxes"]) for result in found])
        return [{**result, "masks": masks} for result, masks in zip(found, parts, strict=True)]


def cropped(masks: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Each mask (H, W) inside its box as (n, side, side) bool (BitMasks.crop_and_resize)."""
    number = torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)[:, None]
    regions = torch.cat((number, boxes), dim=1)
    return roi_align(masks[:, None].float(), regions, side, 1.0, sampling_ratio=0, aligned=True)[:, 0] >= 0.5


def pasted(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Masks (n, 28, 28) in boxes (n, 4) -> (n, height, width) bool: 0.5 or more at a pixel (paste_masks_in_image)."""
    x0, y0, x1, y1 = (side[:, None] for side in boxes.unbind(dim=1))
    x = (torch.arange(width, device=boxes.device) + 0.5 - x0) / (x1 - x0) * 2 - 1
    y = (torch.arange(height, device=boxes.device) + 0.5 - y0) / (y1 - y0) * 2 - 1
    grid = torch.stack((x[:, None].expand(-1, height, -1), y[..., None].expand(-1, -1, width)), dim=-1)
    return F.grid_sample(masks[:, None].to(grid.dtype), grid, align_corners=False)[:, 0] >= 0.5
