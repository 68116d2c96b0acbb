"""The detectors, as detectron2 builds them: C4 on torchvision's ResNets, and a feature pyramid on any backbone."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet
from torchvision.models.detection.image_list import ImageList

from downstream.detection.c4_heads import Predictor, RegionHeads, RegionPool, Res5
from downstream.detection.c4_proposals import ANCHOR_SIZES, ProposalNetwork
from downstream.detection.fpn_heads import BoxHead, LevelPool, MaskHead
from pixpro.errors import UserError
from pixpro.method.heads import LEVELS, PYRAMID_CHANNELS, FeaturePyramid
from pixpro.method.trunks import TRUNK, Pyramid

# RGB in 0..255: what the pre-trained weights have seen
PIXEL_MEAN = (123.675, 116.280, 103.530)
PIXEL_STD = (58.395, 57.120, 57.375)
FPN_LEVELS = tuple((2 ** (2 + place), (size,)) for place, size in enumerate(ANCHOR_SIZES))  # p2 to p6
NECK = "encoder.neck."  # where checkpoints hold the pyramid


class TwoStages(nn.Module):
    """Images -> detections; in training images + boxes -> losses. What detectors with `rpn` and `roi_heads` share."""

    divisor = 1  # of which the sides of a batch are multiples, by padding
    rpn: ProposalNetwork
    roi_heads: RegionHeads

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    def maps(self, batch: Tensor) -> dict[str, Tensor]:
        """The feature maps of normalised images (B, 3, H, W), by name."""
        raise NotImplementedError

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses by name in training, else per image `boxes` (pixels of the given image), `scores`, `labels` 1..C.

        images: (3, H, W) each, RGB in 0..255, already resized; targets: `boxes` (n, 4), `labels` 1..C and, for a
        detector with masks, `masks` (n, H, W). Such a one gives `masks` (n, 28, 28), probabilities in the boxes.
        """
        batch = self.normalized(images)
        features = self.maps(batch.tensors)
        proposals, losses = self.rpn(batch, features, targets)
        detections, region_losses = self.roi_heads(features, proposals, batch.image_sizes, targets)
        return {**losses, **region_losses} if self.training else detections

    def normalized(self, images: list[Tensor]) -> ImageList:
        """One batch, padded with zeros after normalisation to its own largest height and width, and the divisor."""
        images = [(image.to(self.pixel_mean) - self.pixel_mean) / self.pixel_std for image in images]
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        height, width = (-(-max(size) // self.divisor) * self.divisor for size in zip(*sizes, strict=True))
        batch = images[0].new_zeros(len(images), 3, height, width)
        for slot, image in zip(batch, images, strict=True):
            slot[:, : image.shape[1], : image.shape[2]] = image
        return ImageList(batch, sizes)


class Detector(TwoStages):
    """Faster R-CNN C4: proposals from res4, and res5 with the extra BatchNorm for every region."""

    def __init__(
        self, trunk: ResNet, num_classes: int, *, regions_per_image: int = 512, test_proposals: int = 1000
    ) -> None:
        """trunk: its layer4 becomes the region head, its fc is dropped; num_classes: without the background."""
        super().__init__()
        if not isinstance(trunk, ResNet):
            raise UserError(
                f"the backbone is a {type(trunk).__name__}, a C4 detector needs a torchvision ResNet (--arch); "
                "--detector fpn takes any backbone"
            )
        channels = width(trunk.layer4)
        self.backbone = nn.Sequential(*(getattr(trunk, name) for name in TRUNK[:-1]))
        self.rpn = ProposalNetwork(channels // 2, pre_nms=(12000, 6000), post_nms=(2000, test_proposals))
        head, predictor = Res5(trunk.layer4, channels), Predictor(channels, num_classes)
        self.roi_heads = RegionHeads(RegionPool(), head, predictor, regions_per_image=regions_per_image)

    def maps(self, batch: Tensor) -> dict[str, Tensor]:
        return {"res4": self.backbone(batch)}


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups for SGD: everything decays (biases too) except a norm's own weight and bias, as in detectron2.

    Norms are BatchNorm, LayerNorm, and what others name like them: timm has classes of its own.
    """
    norms = [m for m in model.modules() if "Norm" in type(m).__name__]
    plain = {id(p) for m in norms for p in m.parameters(recurse=False)}
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if id(p) not in plain], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) in plain], "weight_decay": 0.0},
    ]


def width(layer4: nn.Module) -> int:
    """Channels that come out of layer4."""
    return [m for m in layer4.modules() if isinstance(m, nn.BatchNorm2d)][-1].num_features


class FPNDetector(TwoStages):
    """Proposals from p2 to p6; box head of four convolutions and, with masks, a mask head, on p2 to p5."""

    divisor = 32

    def __init__(
        self,
        trunk: nn.Module,
        num_classes: int,
        *,
        masks: bool = False,
        regions_per_image: int = 512,
        test_proposals: int = 1000,
    ) -> None:
        """trunk: what `load_backbone` gives; what follows its maps is dropped. num_classes: without the background."""
        super().__init__()
        try:
            self.backbone = Pyramid(trunk)
        except ValueError as error:
            raise UserError(f"a feature pyramid needs maps of strides 4 to 32: {error} (--arch)") from None
        self.neck = FeaturePyramid(list(self.backbone.channels), LEVELS)
        self.rpn = ProposalNetwork(
            PYRAMID_CHANNELS, pre_nms=(2000, 1000), post_nms=(1000, test_proposals), levels=FPN_LEVELS
        )
        head = BoxHead(PYRAMID_CHANNELS)
        self.roi_heads = RegionHeads(
            LevelPool(7),
            head,
            Predictor(head.fc.out_features, num_classes),
            MaskHead(num_classes, PYRAMID_CHANNELS) if masks else None,
            regions_per_image=regions_per_image,
        )

    def maps(self, batch: Tensor) -> dict[str, Tensor]:
        """p2 to p6, the last being every second cell of p5."""
        pyramid = self.neck(self.backbone(batch))
        found = {f"p{level}": cells for level, cells in zip(LEVELS, pyramid, strict=True)}
        return {**found, "p6": F.max_pool2d(pyramid[-1], 1, stride=2)}

    def take_neck(self, weights: Mapping[str, Tensor]) -> int:
        """Load the pyramid's blocks that a checkpoint has, its training having run through them; returns how many.

        weights: under the project's names. A block whose BatchNorm has counted no batch was not trained, and is left.
        """
        neck = {name.removeprefix(NECK): tensor for name, tensor in weights.items() if name.startswith(NECK)}
        own, taken = self.neck.state_dict(), 0
        for block in sorted({".".join(name.split(".")[:2]) for name in neck}):
            counted = neck.get(f"{block}.1.num_batches_tracked")
            part = {name: tensor for name, tensor in neck.items() if name.startswith(f"{block}.")}
            if counted is None or not counted.any():
                continue
            if any(name not in own or own[name].shape != tensor.shape for name, tensor in part.items()):
                raise UserError("the checkpoint's feature pyramid does not fit its backbone; it was altered")
            self.neck.load_state_dict(part, strict=False)
            taken += 1
        return taken
