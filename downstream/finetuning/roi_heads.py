"""The C4 head of MoCo, PixPro and others for detectron2: res5 on each region, then one more BatchNorm."""

from detectron2.config import CfgNode
from detectron2.layers import get_norm
from detectron2.modeling.backbone.resnet import BasicBlock, ResNet
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads
from torch import nn


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
