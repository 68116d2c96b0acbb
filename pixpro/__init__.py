"""Dense self-supervised pre-training: the methods, and the backbones that come out of them."""

from pixpro.checkpoints.backbone import load_backbone
from pixpro.method.model import PixContrast, PixPro

__all__ = ["PixContrast", "PixPro", "load_backbone"]
