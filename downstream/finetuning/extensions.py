"""What this project adds to detectron2: the C4 head of MoCo and PixPro; VOC's AP for data that it cannot read."""

import itertools
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator
from detectron2.layers import get_norm
from detectron2.modeling.backbone.resnet import BasicBlock, ResNet
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads
from detectron2.utils import comm
from torch import nn

from downstream.detection.annotated import DetectionSet
from downstream.detection.voc_ap import Detections, voc_scores


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsExtraNorm(Res5ROIHeads):
    """Res5ROIHeads whose last residual block is followed by a BatchNorm (`res5.norm`), shared by boxes and masks."""

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Sequential, int]:
        """The res5 stage with its extra norm, and its channels."""
        norm, depth = cfg.MODEL.RESNETS.NORM, cfg.MODEL.RESNETS.DEPTH
        if depth < 50:
            # detectron2 builds bottlenecks whatever the depth; resnet18 and resnet34 have basic blocks.
            channels = cfg.MODEL.RESNETS.RES2_OUT_CHANNELS * 8
            blocks = ResNet.make_stage(
                BasicBlock,
                2 if depth == 18 else 3,
                stride_per_block=[2] + [1] * (1 if depth == 18 else 2),
                in_channels=channels // 2,
                out_channels=channels,
                norm=norm,
            )
            stage = nn.Sequential(*blocks)
        else:
            stage, channels = super()._build_res5_block(cfg)
        stage.add_module("norm", get_norm(norm, channels))
        return stage, channels


class VocEvaluator(DatasetEvaluator):
    """AP, AP50, AP75 as PascalVOCDetectionEvaluator gives them on voc_2007 sets (11 points), and AP50 of each class."""

    def __init__(self, data: DetectionSet) -> None:
        self.data, self.found = data, {}

    def reset(self) -> None:
        """Forget what was found."""
        self.found = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take in the detections of some images."""
        for given, output in zip(inputs, outputs, strict=True):
            instances = output["instances"].to("cpu")
            self.found[given["image_id"]] = Detections(
                instances.pred_boxes.tensor.numpy().astype(np.float32),
                instances.scores.numpy(),
                instances.pred_classes.numpy() + 1,
            )

    def evaluate(self) -> dict[str, Any] | None:
        """The scores, in the first process."""
        parts = comm.gather(self.found, dst=0)
        if not comm.is_main_process():
            return None
        found = dict(itertools.chain.from_iterable(part.items() for part in parts))
        scores = voc_scores(self.data.test, found, self.data.class_names)
        return {"bbox": {name.replace("AP50/", "AP50-"): score for name, score in scores.items()}}
