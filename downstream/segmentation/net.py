"""The segmentation network: any backbone -> FCN with stride 16, the field's transfer test (MoCo's)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet

from downstream.detection.detector import PIXEL_MEAN, PIXEL_STD, width
from downstream.segmentation.masks import VOID
from pixpro.errors import UserError
from pixpro.method.trunks import TRUNK, Pyramid


class FCN(nn.Module):
    """Images -> scores per pixel; in training images + masks -> the loss."""

    def __init__(self, trunk: nn.Module, num_classes: int) -> None:
        """trunk: what `load_backbone` gives; a ResNet's layer4 is dilated in place, what follows its maps is dropped.

        num_classes: the background, where it is one, too.
        """
        super().__init__()
        if isinstance(trunk, ResNet):
            dilate(trunk.layer4)
            self.backbone = nn.Sequential(*(getattr(trunk, name) for name in TRUNK))
            channels = width(trunk.layer4)
        else:
            self.backbone = LastTwoMaps(trunk)
            channels = self.backbone.channels
        self.multiple = 1 if isinstance(trunk, ResNet) else 32  # of which a side must be: some of timm's take no other
        self.head = nn.Sequential(*conv_norm(channels, 256), *conv_norm(256, 256), nn.Conv2d(256, num_classes, 1))
        for module in self.head.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | Tensor:
        """The loss by name in training, else scores (B, classes, H, W).

        images: (3, H, W) each, all of one size, RGB in 0..255; targets: `mask` (H, W) uint8, 255 is void.
        """
        batch = (torch.stack(images) - self.pixel_mean) / self.pixel_std
        height, width = batch.shape[2:]
        # Zero is the mean colour; padded and cropped alike, cells stay where they are.
        batch = F.pad(batch, (0, -width % self.multiple, 0, -height % self.multiple))
        scores = self.head(self.backbone(batch)).float()
        scores = F.interpolate(scores, batch.shape[2:], mode="bilinear", align_corners=False)
        scores = scores[..., :height, :width]
        if not self.training:
            return scores
        return {"loss_pixels": pixel_loss(scores, torch.stack([target["mask"] for target in targets]))}


class LastTwoMaps(nn.Module):
    """A backbone that cannot be dilated as a map of stride 16: c4, and c5 enlarged to its size, one on the other."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        try:
            self.pyramid = Pyramid(trunk)
        except ValueError as error:
            raise UserError(f"the FCN needs a backbone with maps of stride 16 and 32: {error} (--arch)") from None
        self.channels = sum(self.pyramid.channels[-2:])

    def forward(self, images: Tensor) -> Tensor:
        maps = self.pyramid(images)
        coarse = F.interpolate(maps["c5"], maps["c4"].shape[2:], mode="bilinear", align_corners=False)
        return torch.cat((maps["c4"], coarse), dim=1)


def pixel_loss(scores: Tensor, masks: Tensor) -> Tensor:
    """Mean cross-entropy of the pixels that are not void; 0 when all are. scores (B, C, H, W), masks (B, H, W)."""
    total = F.cross_entropy(scores, masks.long(), ignore_index=VOID, reduction="sum")
    return total / (masks != VOID).sum().clamp(min=1)


def dilate(layer4: nn.Module) -> None:
    """Stride 1 instead of 2 in layer4, and dilation 2 in its 3 x 3 convolutions: twice the resolution, same reach."""
    for module in layer4.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                module.dilation = module.padding = (2, 2)


def conv_norm(channels: int, out: int) -> tuple[nn.Module, ...]:
    """A 3 x 3 convolution with dilation 6, BatchNorm and ReLU."""
    return nn.Conv2d(channels, out, 3, padding=6, dilation=6, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
