"""One small detection problem, the same everywhere: weights from a formula, two images, their boxes.

240 anchors and at most 6 regions per image are fewer than the detectors sample, so all are used and nothing is drawn
at random. The residual branches are damped, as in a trained net, so that rounding does not grow from step to step.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from downstream.detection.detector import Detector

NUM_CLASSES = 3
PROPOSALS = 4  # per image, in training and in testing


def make_detector(residual: float) -> Detector:
    """A ResNet-50 detector of 3 classes whose weights follow from their position alone."""
    model = Detector(resnet50(), NUM_CLASSES, test_proposals=PROPOSALS)
    model.rpn._post_nms_top_n["training"] = PROPOSALS
    fill(model)
    with torch.no_grad():
        for name, module in model.named_modules():
            if name.endswith("bn3"):
                module.weight.mul_(residual)
        # features of this net are large: without this the scores are 0 or 1 and the boxes empty
        model.rpn.head.conv[0][0].weight.mul_(0.02)
        model.rpn.head.bbox_pred.weight.mul_(0.3)
        model.roi_heads.box_predictor.cls_score.weight.mul_(0.02)
        model.roi_heads.box_predictor.bbox_pred.weight.mul_(0.02)
    return model


def fill(model: nn.Module) -> None:
    """Give every layer weights that follow from their position alone."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.copy_(noise(module.weight.shape) * (2.0 / fan_in) ** 0.5)
                if module.bias is not None:
                    module.bias.copy_(0.05 * noise(module.bias.shape))
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(1.0 + 0.2 * noise(module.weight.shape))
                module.bias.copy_(0.1 * noise(module.bias.shape))
                module.running_mean.copy_(0.05 * noise(module.running_mean.shape))
                module.running_var.copy_(1.0 + 0.1 * noise(module.running_var.shape))


def noise(shape: torch.Size) -> Tensor:
    """Uniform numbers of unit variance from an integer hash of their position: the same on every machine."""
    bits = (torch.arange(shape.numel()) * 2654435761 + shape.numel()) & 0xFFFFFFFF
    for _ in range(2):
        bits = ((bits ^ (bits >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return ((bits.double() / 2**31 - 1) * 3**0.5).float().reshape(shape)


def make_images() -> list[Tensor]:
    """Two images of different shape, (3, 50, 62) and (3, 64, 47), in 0..255."""
    images = []
    for height, width in ((50, 62), (64, 47)):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        pattern = [torch.sin(x / (4.0 + c)) * torch.cos(y / (7.0 - c)) + (x > 25) * (y > 20) for c in range(3)]
        images.append((127.5 + 60 * torch.stack(pattern)).clamp(0, 255))
    return images


def make_targets() -> list[dict[str, Tensor]]:
    """Boxes in pixels and classes 1..3."""
    return [
        {"boxes": torch.tensor([[4.0, 6.0, 40.0, 44.0], [26.0, 21.0, 60.0, 48.0]]), "labels": torch.tensor([1, 3])},
        {"boxes": torch.tensor([[10.0, 12.0, 30.0, 60.0]]), "labels": torch.tensor([2])},
    ]


def sgd_losses(model: nn.Module, forward: Callable[[], dict[str, Tensor]], steps: int) -> list[dict[str, float]]:
    """The four losses of each of some SGD steps at learning rate 0.001, momentum 0.9, weight decay 1e-4."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=1e-4)
    history = []
    for _ in range(steps):
        losses = forward()
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    return history
