"""Other projects' models, rebuilt from their key names: what they compute is what a converted checkpoint must compute.

All on a resnet18 with random weights and statistics; `maps` is what the online encoder projects, in eval mode.
"""

from collections import OrderedDict
from collections.abc import Callable

import torch
import torchvision
from torch import nn

HIDDEN, DIM = 24, 16


def resnet(fc: nn.Module | None = None) -> nn.Module:
    model = torchvision.models.resnet18(weights=None)
    model.fc = fc if fc is not None else nn.Identity()
    return model


class Trunk(nn.Module):
    """A resnet18 up to its last map, with further modules beside."""

    def __init__(self, **beside: nn.Module) -> None:
        super().__init__()
        for name, child in list(resnet().named_children())[:-2]:
            self.add_module(name, child)
        for name, child in beside.items():
            self.add_module(name, child)

    def forward(self, images):
        return c5(self, images)


def c5(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    images = model.maxpool(torch.relu(model.bn1(model.conv1(images))))
    return model.layer4(model.layer3(model.layer2(model.layer1(images))))


class MLP2d(nn.Module):
    def __init__(self, channels: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Conv2d(channels, hidden, 1)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.linear2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, maps):
        return self.linear2(torch.relu(self.bn1(self.linear1(maps))))


def sequential_head(channels: int, hidden: int, dim: int, bias: bool = True) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1, bias=bias), nn.BatchNorm2d(hidden), nn.ReLU(), nn.Conv2d(hidden, dim, 1)
    )


class Official(nn.Module):
    """zdaxie/PixPro."""

    def __init__(self, layers: int = 1, instance: bool = False) -> None:
        super().__init__()
        self.encoder, self.projector = Trunk(), MLP2d(512, HIDDEN, DIM)
        self.encoder_k, self.projector_k = Trunk(), MLP2d(512, HIDDEN, DIM)
        self.value_transform = [nn.Identity(), nn.Conv2d(DIM, DIM, 1), MLP2d(DIM, DIM, DIM)][layers]
        if instance:
            self.projector_instance, self.projector_instance_k = MLP2d(512, HIDDEN, DIM), MLP2d(512, HIDDEN, DIM)
            self.predictor = MLP2d(DIM, HIDDEN, DIM)

    def maps(self, images):
        return self.projector(self.encoder(images))

    def momentum_maps(self, images):
        return self.projector_k(self.encoder_k(images))

    def transform(self, cells):
        return self.value_transform(cells)


class Seed(nn.Module):
    """Sungman-Cho/Propagate-Yourself-Pytorch."""

    def __init__(self, layers: int = 1) -> None:
        super().__init__()
        self.base_encoder = Trunk(projection=sequential_head(512, HIDDEN, DIM))
        self.moment_encoder = Trunk(projection=sequential_head(512, HIDDEN, DIM))
        self.ppm = nn.Module()
        self.ppm.transform_block = [nn.Identity(), nn.Conv2d(DIM, DIM, 1), sequential_head(DIM, DIM, DIM)][layers]

    def maps(self, images):
        return self.base_encoder.projection(self.base_encoder(images))

    def momentum_maps(self, images):
        return self.moment_encoder.projection(self.moment_encoder(images))

    def transform(self, cells):
        return self.ppm.transform_block(cells)


class Conradry(nn.Module):
    """conradry/pixpro-with-weights: first convolutions of heads without a bias."""

    def __init__(self, layers: int = 1) -> None:
        super().__init__()
        self.encoder, self.mom_encoder, self.ppm = nn.Module(), nn.Module(), nn.Module()
        for encoder in (self.encoder, self.mom_encoder):
            encoder.backbone = nn.Sequential(OrderedDict(list(resnet().named_children())[:-2]))
            encoder.projection = sequential_head(512, HIDDEN, DIM, bias=False)
        self.ppm.transform = [
            nn.Sequential(nn.Identity()),
            nn.Sequential(nn.Conv2d(DIM, DIM, 1)),
            sequential_head(DIM, DIM, DIM, bias=False),
        ][layers]

    def maps(self, images):
        return self.encoder.projection(self.encoder.backbone(images))

    def momentum_maps(self, images):
        return self.mom_encoder.projection(self.mom_encoder.backbone(images))

    def transform(self, cells):
        return self.ppm.transform(cells)


class MoCo(nn.Module):
    """MoCo v2: queue and 1-D heads, which have no place in a PixPro."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder_q = resnet(nn.Sequential(nn.Linear(512, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, DIM)))
        self.encoder_k = resnet(nn.Sequential(nn.Linear(512, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, DIM)))
        self.register_buffer("queue", torch.zeros(DIM, 8))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    def trunk(self, images):
        return c5(self.encoder_q, images)

    def momentum_trunk(self, images):
        return c5(self.encoder_k, images)


class MoCoV3(nn.Module):
    """MoCo v3 on a ResNet: heads and predictor of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.base_encoder = resnet(nn.Sequential(nn.Linear(512, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN)))
        self.momentum_encoder = resnet(nn.Sequential(nn.Linear(512, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN)))
        self.predictor = nn.Sequential(nn.Linear(HIDDEN, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN))

    def trunk(self, images):
        return c5(self.base_encoder, images)

    def momentum_trunk(self, images):
        return c5(self.momentum_encoder, images)


class SimSiam(nn.Module):
    """SimSiam: its trunk under `encoder.`, like the official PixPro's, and a predictor of another kind."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = resnet(nn.Sequential(nn.Linear(512, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN)))
        self.predictor = nn.Sequential(nn.Linear(HIDDEN, DIM, bias=False), nn.BatchNorm1d(DIM))

    def trunk(self, images):
        return c5(self.encoder, images)


class DenseCL(nn.Module):
    """DenseCL: trunk and neck as a sequence, and the trunk once more as `backbone`."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder_q = nn.Sequential(Trunk(), self.neck())
        self.encoder_k = nn.Sequential(Trunk(), self.neck())
        self.backbone = self.encoder_q[0]
        self.register_buffer("queue", torch.zeros(DIM, 8))
        self.register_buffer("queue2", torch.zeros(DIM, 8))

    def neck(self) -> nn.Module:
        neck = nn.Module()
        neck.mlp = nn.Sequential(nn.Linear(512, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, DIM))
        neck.mlp2 = nn.Sequential(nn.Conv2d(512, HIDDEN, 1), nn.ReLU(), nn.Conv2d(HIDDEN, DIM, 1))
        return neck

    def trunk(self, images):
        return self.backbone(images)

    def momentum_trunk(self, images):
        return self.encoder_k[0](images)


class Plain(nn.Module):
    """A bare torchvision model, with or without its classifier, maybe under another module's name."""

    def __init__(self, fc: bool = True, under: str = "") -> None:
        super().__init__()
        self.under = under
        model = resnet(nn.Linear(512, 10) if fc else None)
        if under:
            self.add_module(under, model)
        else:
            for name, child in model.named_children():
                self.add_module(name, child)

    def trunk(self, images):
        return c5(getattr(self, self.under) if self.under else self, images)


def randomised(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A new model in float64 and eval mode with every parameter and statistic drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = make()
    model = model.double().eval().to_empty(device="cpu")
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.is_floating_point():
            bound = 0.5 if tensor.ndim < 2 else (6 / tensor[0].numel()) ** 0.5
            tensor.uniform_(-bound, bound, generator=generator)
        else:
            tensor.zero_()
    return model


def wrapped(state_dict: dict, prefix: str = "module.") -> dict:
    return {prefix + name: tensor for name, tensor in state_dict.items()}
