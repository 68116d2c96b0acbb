"""detectron2's detectors in our terms, and its C4 one with our weights; imported only by what needs detectron2."""

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import get_norm
from detectron2.modeling import ROI_HEADS_REGISTRY, build_model
from detectron2.modeling.roi_heads import Res5ROIHeads
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from downstream.detection.detector import PIXEL_MEAN, PIXEL_STD, Detector

LOSSES = {
    "loss_rpn_cls": "loss_objectness",
    "loss_rpn_loc": "loss_rpn_box_reg",
    "loss_cls": "loss_classifier",
    "loss_box_reg": "loss_box_reg",
    "loss_mask": "loss_mask",
}  # detectron2's names: ours
RPN = {
    "rpn.head.conv.0.0": "proposal_generator.rpn_head.conv",
    "rpn.head.cls_logits": "proposal_generator.rpn_head.objectness_logits",
    "rpn.head.bbox_pred": "proposal_generator.rpn_head.anchor_deltas",
}  # ours: detectron2's


@ROI_HEADS_REGISTRY.register()
class Res5WithNorm(Res5ROIHeads):
    """Res5ROIHeads with a norm after res5."""

    @classmethod
    def _build_res5_block(cls, cfg):
        blocks, channels = super()._build_res5_block(cfg)
        blocks.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels))
        return blocks, channels


def build_reference(model: Detector, num_classes: int, proposals: int) -> nn.Module:
    """The recipe's C4 model (24k VOC) with the weights of model."""
    cfg = get_cfg()
    cfg.merge_from_list(
        [
            *("MODEL.DEVICE", "cpu", "MODEL.META_ARCHITECTURE", "GeneralizedRCNN"),
            *("MODEL.PIXEL_MEAN", list(PIXEL_MEAN), "MODEL.PIXEL_STD", list(PIXEL_STD), "INPUT.FORMAT", "RGB"),
            *("MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.BACKBONE.FREEZE_AT", 0),
            *("MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.NORM", "BN", "MODEL.RESNETS.STRIDE_IN_1X1", False),
            *("MODEL.RPN.POST_NMS_TOPK_TRAIN", proposals, "MODEL.RPN.POST_NMS_TOPK_TEST", proposals),
            *("MODEL.ROI_HEADS.NAME", "Res5WithNorm", "MODEL.ROI_HEADS.NUM_CLASSES", num_classes),
        ]
    )
    return with_weights(cfg, to_detectron2(model.state_dict()))


def with_weights(cfg: CfgNode, state: dict[str, Tensor]) -> nn.Module:
    """The configured model with a state that has to fill it."""
    reference = build_model(cfg)
    missing, unexpected = reference.load_state_dict(state, strict=False)
    assert not unexpected and not [k for k in missing if "pixel" not in k and "anchor_gen" not in k], missing
    return reference


def to_detectron2(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our detector's state under detectron2's names; there the background is the last class and has no box."""
    renamed = {}
    stages = {"4": "backbone.res2", "5": "backbone.res3", "6": "backbone.res4"}
    for key, value in state.items():
        if key.endswith("num_batches_tracked"):
            continue
        if key.startswith("backbone."):
            _, stage, *rest = key.split(".")
            stem = {"0": "backbone.stem.conv1", "1": "backbone.stem.conv1.norm"}
            head = stages[stage] if stage in stages else stem[stage]
            key = ".".join([head, *_block(rest)]) if stage in stages else ".".join([head, *rest])
        elif key.startswith("roi_heads.box_head.layer4."):
            key = ".".join(["roi_heads.res5", *_block(key.split(".")[3:])])
        elif key.startswith("roi_heads.box_head.norm."):
            key = key.replace("roi_heads.box_head.norm", "roi_heads.res5.norm")
        else:
            key, value = rpn_and_boxes(key, value)
        renamed[key] = value.clone()
    return renamed


def rpn_and_boxes(key: str, value: Tensor) -> tuple[str, Tensor]:
    """A tensor of the proposals or of the last layers under detectron2's name, its classes in the order of there."""
    for ours, theirs in RPN.items():
        key = key.replace(ours, theirs)
    if "cls_score" in key:
        return key, torch.cat((value[1:], value[:1]))
    return key, value[4:] if "bbox_pred" in key else value


def _block(parts: list[str]) -> list[str]:
    """Names inside a residual block: bn2.weight -> conv2.norm.weight, downsample.1 -> shortcut.norm."""
    block, name, *rest = parts
    if name == "downsample":
        return [block, "shortcut", *(["norm"] if rest[0] == "1" else []), *rest[1:]]
    return [block, f"conv{name[-1]}", *(["norm"] if name.startswith("bn") else []), *rest]


def inputs(images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> list[dict]:
    """A batch as detectron2 wants it."""
    batch = []
    for i, image in enumerate(images):
        item = {"image": image, "height": image.shape[1], "width": image.shape[2]}
        if targets:
            item["instances"] = Instances(tuple(image.shape[1:]))
            item["instances"].gt_boxes = Boxes(targets[i]["boxes"])
            item["instances"].gt_classes = targets[i]["labels"] - 1
            if "masks" in targets[i]:
                item["instances"].gt_masks = BitMasks(targets[i]["masks"])
        batch.append(item)
    return batch


def detect(reference: nn.Module, images: list[Tensor]) -> list[dict[str, Tensor]]:
    """detectron2's detections in our form, classes from 1; masks, if it has any, pasted into the images."""
    with torch.no_grad():
        outputs = [output["instances"] for output in reference.eval()(inputs(images))]
    found = [{"boxes": o.pred_boxes.tensor, "scores": o.scores, "labels": o.pred_classes + 1} for o in outputs]
    for result, output in zip(found, outputs, strict=True):
        if output.has("pred_masks"):
            result["masks"] = output.pred_masks
    return found


def losses(reference: nn.Module, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """detectron2's losses under our names, in training mode."""
    with EventStorage():
        return {LOSSES[name]: loss for name, loss in reference.train()(inputs(images, targets)).items()}
