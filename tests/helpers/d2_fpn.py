"""detectron2's own FPN detector with our detector's weights; imported only by tests that need detectron2."""

import re

import torch
from detectron2.config import get_cfg
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.modeling import build_model
from detectron2.structures import BitMasks
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from downstream.conversion.names import pyramid_name, trunk_name
from downstream.detection.detector import PIXEL_MEAN, PIXEL_STD
from downstream.detection.fpn import FPNDetector
from tests.helpers import d2_case

NAMES = {
    "loss_rpn_cls": "loss_objectness",
    "loss_rpn_loc": "loss_rpn_box_reg",
    "loss_cls": "loss_classifier",
    "loss_box_reg": "loss_box_reg",
    "loss_mask": "loss_mask",
}


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
    reference = build_model(cfg)
    missing, unexpected = reference.load_state_dict(renamed(model.state_dict()), strict=False)
    assert not unexpected and not [k for k in missing if "pixel" not in k and "anchor_gen" not in k], missing
    return reference


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
        elif key.startswith("rpn.head."):
            key = key.replace("rpn.head.conv.0.0", "proposal_generator.rpn_head.conv")
            key = key.replace("rpn.head.cls_logits", "proposal_generator.rpn_head.objectness_logits")
            key = key.replace("rpn.head.bbox_pred", "proposal_generator.rpn_head.anchor_deltas")
        elif match := re.fullmatch(r"roi_heads\.(box_head|masks)\.convs\.(\d)\.([01])\.(.+)", key):
            head, layer = ("box_head", "conv") if match[1] == "box_head" else ("mask_head", "mask_fcn")
            key = f"roi_heads.{head}.{layer}{int(match[2]) + 1}.{'norm.' * int(match[3])}{match[4]}"
        elif key.startswith("roi_heads.box_head.fc."):
            key = key.replace("box_head.fc", "box_head.fc1")
        elif key.startswith("roi_heads.masks."):
            key = key.replace("roi_heads.masks", "roi_heads.mask_head")
        elif "cls_score" in key:
            value = torch.cat((value[1:], value[:1]))
        elif "bbox_pred" in key:
            value = value[4:]
        found[key] = value.clone()
    return found


def losses(reference: nn.Module, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """detectron2's losses under our names, in training mode."""
    batch = d2_case.inputs(images, targets)
    for item, target in zip(batch, targets, strict=True):
        if "masks" in target:
            item["instances"].gt_masks = BitMasks(target["masks"])
    with EventStorage():
        return {NAMES[name]: loss for name, loss in reference.train()(batch).items()}


def detect(reference: nn.Module, images: list[Tensor]) -> list[dict[str, Tensor]]:
    """detectron2's detections in our form, classes from 1, masks pasted into the images."""
    with torch.no_grad():
        outputs = [output["instances"] for output in reference.eval()(d2_case.inputs(images))]
    names = {
        "boxes": lambda o: o.pred_boxes.tensor,
        "scores": lambda o: o.scores,
        "labels": lambda o: o.pred_classes + 1,
    }
    found = [{name: of(output) for name, of in names.items()} for output in outputs]
    for result, output in zip(found, outputs, strict=True):
        if output.has("pred_masks"):
            result["masks"] = output.pred_masks
    return found


def paste(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """detectron2's way of pasting masks (n, 28, 28) into an image."""
    return paste_masks_in_image(masks, boxes, (height, width), threshold=0.5)
