"""torch.hub entry points: pre-trained backbones from checkpoints on this machine.

torch.hub.load("PATH/TO/THIS/REPOSITORY", "pixpro_resnet50", "checkpoint.pth.tar", source="local")
"""

from torch import nn

from pixpro.checkpoints.convert import load_backbone

dependencies = ["torch", "torchvision"]  # for torch.hub, which names those that are missing


def backbone(checkpoint: str, arch: str | None = None) -> nn.Module:
    """The torchvision or timm model with the checkpoint's trunk and no classifier; any arch, any known project."""
    return load_backbone(checkpoint, arch)


def pixpro_resnet18(checkpoint: str) -> nn.Module:
    """A ResNet-18 with the checkpoint's trunk, `fc` an identity: (B, 3, H, W) -> (B, 512)."""
    return load_backbone(checkpoint, "resnet18")


def pixpro_resnet50(checkpoint: str) -> nn.Module:
    """A ResNet-50 with the checkpoint's trunk, `fc` an identity: (B, 3, H, W) -> (B, 2048)."""
    return load_backbone(checkpoint, "resnet50")
