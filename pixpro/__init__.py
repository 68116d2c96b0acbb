"""Dense self-supervised pre-training: the methods, and the backbones that come out of them."""

from pixpro.compat.backbone import load_backbone
from pixpro.model import PixContrast, PixPro

__all__ = ["PixContrast", "PixPro", "load_backbone"]
