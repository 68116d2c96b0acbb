"""The FPN detector: any backbone -> Faster R-CNN or Mask R-CNN on a feature pyramid, as detectron2 builds it."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from downstream.detection.c4_heads import Predictor, RegionHeads
from downstream.detection.c4_proposals import ANCHOR_SIZES, ProposalNetwork
from downstream.detection.detector import TwoStages
from downstream.detection.fpn_heads import BoxHead, LevelPool, MaskHead
from pixpro.errors import UserError
from pixpro.method.heads import LEVELS, PYRAMID_CHANNELS, FeaturePyramid
from pixpro.method.trunks import Pyramid

FPN_LEVELS = tuple((2 ** (2 + place), (size,)) for place, size in enumerate(ANCHOR_SIZES))  # p2 to p6
NECK = "encoder.neck."  # where checkpoints hold the pyramid


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
