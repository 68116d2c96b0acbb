"""Backbones, torchvision's ResNets and timm's pyramids, as what all else works on: their maps c2 to c5."""

from functools import cache
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import ResNet

from pixpro.method.timm_models import MAPS, STRIDES, Taps, cut_after_c5, import_timm, is_timm, timm_maps, timm_model

ARCHS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
TRUNK = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")  # of a torchvision ResNet


class Archs(tuple[str, ...]):
    """torchvision's names, which are listed, and `timm/NAME`, which are too many to list."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (is_timm(name) or tuple.__contains__(self, name))


CHOICES = Archs((*ARCHS, "timm/NAME"))


def libraries(arch: str) -> dict[str, str]:
    """The libraries that make a backbone, with their versions, for checkpoints."""
    library = import_timm() if is_timm(arch) else torchvision
    return {module.__name__: str(module.__version__) for module in (torch, library)}


def check_arch(arch: str) -> None:
    """Raise ValueError, in one line, unless this is a backbone that gives c2 to c5."""
    if is_timm(arch):
        timm_taps(arch)
    elif arch not in ARCHS:
        raise ValueError(f"unknown arch {arch!r}; expected {', '.join(ARCHS)} or timm/NAME")


def new_backbone(arch: str) -> nn.Module:
    """The library's own model, without a classifier, with weights at random: (B, 3, H, W) -> (B, C).

    torchvision's with zero_init_residual, as pre-training starts; timm's as timm starts them.
    """
    if is_timm(arch):
        return timm_model(arch)
    check_arch(arch)
    model = torchvision.models.get_model(arch, weights=None, zero_init_residual=True)
    model.fc = nn.Identity()
    return model


@cache
def timm_taps(arch: str) -> Taps:
    """Where a model of timm gives c2 to c5; ValueError, with the reason, where it does not."""
    return cut_after_c5(sketch(arch), arch)


def sketch(arch: str) -> nn.Module:
    """A backbone without memory for its weights where its code allows that, else with weights that nobody uses."""
    try:
        with torch.device("meta"):
            return new_backbone(arch)
    except (NotImplementedError, RuntimeError):  # some of timm's compute while they are made
        with torch.random.fork_rng(devices=[]):
            return new_backbone(arch)


@cache
def trunk_tensors(arch: str) -> dict[str, torch.Size]:
    """Names and shapes of all tensors of a backbone that its maps up to c5 need."""
    body = sketch(arch)
    if is_timm(arch):
        cut_after_c5(body, arch)
    return {name: tensor.shape for name, tensor in body.state_dict().items()}


@cache
def timm_idle(arch: str, seen: tuple[str, ...]) -> frozenset[str]:
    """Names of the parameters of a timm model's trunk on which none of the maps `seen` depends."""
    pyramid = Pyramid(sketch(arch))
    device = next(pyramid.parameters()).device
    images = torch.zeros(2, *cast(Any, pyramid.body).pretrained_cfg["input_size"], device=device)
    maps = pyramid(images)
    sum(maps[name].sum() for name in seen).backward()
    return frozenset(name for name, parameter in pyramid.body.named_parameters() if parameter.grad is None)


def resnet_maps(net: Any, images: Tensor, last: str = "c5") -> dict[str, Tensor]:
    """The maps c2 to `last` of a module with the parts of a torchvision ResNet."""
    cells = net.maxpool(net.relu(net.bn1(net.conv1(images))))
    maps = {}
    for number, name in enumerate(MAPS[: MAPS.index(last) + 1], start=1):
        maps[name] = cells = getattr(net, f"layer{number}")(cells)
    return maps


class Pyramid(nn.Module):
    """Any backbone of `load_backbone` or `new_backbone` as its maps: (B, 3, H, W) -> {"c2": ..., ... "c5": ...}.

    channels, strides: of c2 to c5. body: the backbone, whose classifier and what else follows c5 is dropped.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.body = backbone
        self.strides = STRIDES
        self.taps: Taps | None = None
        if isinstance(backbone, ResNet):
            backbone.fc = nn.Identity()
            last = [m for m in backbone.layer4.modules() if isinstance(m, nn.BatchNorm2d)][-1].num_features
            self.channels: tuple[int, ...] = (last // 8, last // 4, last // 2, last)
        else:
            self.taps = cut_after_c5(backbone, type(backbone).__name__)
            self.channels = self.taps.channels

    def forward(self, images: Tensor, last: str = "c5") -> dict[str, Tensor]:
        if self.taps is None:
            return resnet_maps(self.body, images, last)
        return timm_maps(self.body, self.taps, images, last)


class OneMap(nn.Module):
    """One map of any backbone of `load_backbone` or `new_backbone`: (B, 3, H, W) -> (B, C, H / 32, W / 32) for c5."""

    def __init__(self, backbone: nn.Module, name: str = "c5") -> None:
        super().__init__()
        self.pyramid, self.name = Pyramid(backbone), name
        self.channels = self.pyramid.channels[MAPS.index(name)]

    def forward(self, images: Tensor) -> Tensor:
        return self.pyramid(images, self.name)[self.name]


@cache
def map_shapes(arch: str, side: int) -> dict[str, tuple[int, int, int]]:
    """(C, H, W) of c2 to c5 for square images, without computing them; ValueError for a side it cannot take."""
    pyramid = Pyramid(sketch(arch)).eval()
    device = next(pyramid.parameters()).device
    try:
        with torch.no_grad():
            maps = pyramid(torch.zeros(1, 3, side, side, device=device))
    except Exception as error:  # whatever the model's own code says about a size that it was not made for
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"{arch} cannot take images of {side} px ({reason})") from None
    shapes = {name: tuple(cells.shape[1:]) for name, cells in maps.items()}
    for (name, shape), channels, stride in zip(shapes.items(), pyramid.channels, STRIDES, strict=True):
        if shape[0] != channels or any(abs(length - side / stride) > 1 for length in shape[1:]):
            raise ValueError(
                f"{arch} gives {name} as {shape} for {side} px; expected {channels} channels and stride {stride}"
            )
    return shapes
