"""detectron2's own FPN detector with our detector's weights; imported only by tests that need detectron2."""

import re

from detectron2.config import get_cfg
from detectron2.layers.mask_ops import paste_masks_in_image
from torch import Tensor, nn

from downstream.conversion.names import pyramid_name, trunk_name
from downstream.detection.detector import PIXEL_MEAN, PIXEL_STD, FPNDetector
from tests.helpers import d2_case


def build_reference(model: FPNDetector, num_classes: int, depth: int) -> nn.Module:
    """The published FPN model (configs/coco_fpn_1x.yaml) with the weights of model, BatchNorm for SyncBN."""
    cfg = get_cfg()
    cfg.merge_from_file("downstream/configs/coco_fpn_1x.yaml")
    masks = model.roi_heads.masks is not None
    cfg.merge_from_list(
        [
            *("MODEL.DEVICE", "cpu", "INPUT.FORMAT", "RGB", "INPUT.MASK_FORMAT", "bitmask", "MODEL.MASK_ON", masks),
            *("MODEL.PIXEL_MEAN", list(PIXEL_MEAN), "MODEL.PIXEL_STD", list(PIXEL_STD)),
            *("MODEL.RESNETS.DEPTH", depth, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64 if depth < 50 else 256),
            *("MODEL.RESNETS.STRIDE_IN_1X1", False, "MODEL.RESNETS.NORM", "BN", "MODEL.FPN.NORM", "BN"),
            *("MODEL.ROI_BOX_HEAD.NORM", "BN", "MODEL.ROI_MASK_HEAD.NORM", "BN"),
            *("MODEL.ROI_HEADS.NUM_CLASSES", num_classes),
        ]
    )
    return d2_case.with_weights(cfg, renamed(model.state_dict()))


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our detector's state under detectron2's names; there the background is the last class and has no box."""
    found = {}
    for key, value in state.items():
        if key.endswith("num_batches_tracked") or ".fc." in key and key.startswith("backbone"):
            continue
        if key.startswith("backbone.body."):
            key = "backbone.bottom_up." + trunk_name(key.removeprefix("backbone.body."))
        elif key.startswith("neck."):
            key = "backbone." + pyramid_name(key.removeprefix("neck."))
        elif match := re.fullmatch(r"roi_heads\.(box_head|masks)\.convs\.(\d)\.([01])\.(.+)", key):
            head, layer = ("box_head", "conv") if match[1] == "box_head" else ("mask_head", "mask_fcn")
            key = f"roi_heads.{head}.{layer}{int(match[2]) + 1}.{'norm.' * int(match[3])}{match[4]}"
        elif key.startswith("roi_heads.box_head.fc."):
            key = key.replace("box_head.fc", "box_head.fc1")
        elif key.startswith("roi_heads.masks."):
            key = key.replace("roi_heads.masks", "roi_heads.mask_head")
        else:
            key, value = d2_case.rpn_and_boxes(key, value)
        found[key] = value.clone()
    return found


def paste(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """detectron2's way of pasting masks (n, 28, 28) into an image."""
    return paste_masks_in_image(masks, boxes, (height, width), threshold=0.5)
