"""Networks of a few thousand weights and smooth random pictures: whole training runs in seconds."""

import random
from collections.abc import Iterator
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixpro.data.augment import draw_colour
from pixpro.data.samples import Batch
from pixpro.data.views import View, crop_box, crop_pixels, draw_crop
from pixpro.method.encoder import Encoder, momentum_copy
from pixpro.method.heads import ConvHead
from pixpro.method.model import DensePretraining, PixPro
from pixpro.training.engine import Trainer
from pixpro.training.optim import LARS, parameter_groups
from pixpro.training.schedules import warmup_cosine_lr

SIZE, DIM = 64, 64  # 4 x 4 cells


def block(channels_in: int, channels: int, stride: int) -> nn.Sequential:
    """A stage of the small trunk."""
    conv = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())


def shrink(model: DensePretraining) -> DensePretraining:
    """The model with a trunk of five convolutions, of stride 16, in place of its residual network."""
    encoder: Encoder = model.encoder
    encoder.conv1, encoder.bn1 = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
    encoder.layer1, encoder.layer2 = block(16, 32, 2), block(32, 64, 2)
    encoder.layer3, encoder.layer4 = block(64, 64, 1), block(64, 64, 1)
    encoder.projector = ConvHead(64, 128, DIM)
    model.momentum_encoder = momentum_copy(encoder)
    return model


class Unpropagated(PixPro):
    """PixPro without the module that keeps it from collapsing."""

    def predict(self, cells: Tensor) -> Tensor:
        return cells


class Pictures:
    """A loader over smooth random pictures, whose crops are drawn by the recipe; apart: of places far apart."""

    def __init__(self, batch: int = 16, steps: int = 10, apart: bool = False) -> None:
        self.batch, self.steps, self.apart = batch, steps, apart
        self.order = SimpleNamespace(batch_size=batch)
        noise = torch.rand(batch * 2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
        self.images = (F.interpolate(noise, size=96, mode="bicubic") * 255).clamp(0, 255).byte()
        self.epoch = self.position = 0

    def __len__(self) -> int:
        return self.steps

    def set_position(self, epoch: int, step: int = 0) -> None:
        self.epoch, self.position = epoch, step

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.position, self.steps):
            rng = random.Random(self.epoch * 1000 + step)
            index = torch.tensor([rng.randrange(len(self.images)) for _ in range(self.batch)])
            views = [self.view(index, rng, which) for which in (0, 1)]
            colours = [torch.tensor([draw_colour(rng, which) for _ in index]) for which in (0, 1)]
            yield Batch(*views, *colours, index, torch.zeros(len(index), dtype=torch.bool))

    def view(self, index: Tensor, rng: random.Random, which: int) -> View:
        """One crop of each image."""
        pixels, boxes = [], []
        for image in self.images[index]:
            crop = (60 * which, 60 * which, 30, 30) if self.apart else draw_crop(rng, 96, 96)
            flip = rng.random() < 0.5
            pixels.append(crop_pixels(image, crop, flip, SIZE).permute(2, 0, 1))
            boxes.append(crop_box(crop, 96, 96, flip, "image"))
        return View(torch.stack(pixels), torch.tensor(boxes))


def small_trainer(
    model: DensePretraining, *, lr: float = 1.0, momentum: float = 0.99, steps: int = 60, accumulation: int = 1
) -> Trainer:
    """A trainer with LARS, a sixth of the steps as warm-up, and a constant momentum coefficient."""
    return Trainer(
        model,
        LARS(parameter_groups(model, 1e-5), lr, 0.9),
        device=torch.device("cpu"),
        lr_at=lambda step: warmup_cosine_lr(step, base_lr=lr, total_steps=steps, warmup_steps=steps // 6),
        momentum_at=lambda step: momentum,
        accumulation=accumulation,
    )


def rows_of(trainer: Trainer, steps: int, report_every: int = 5, apart: bool = False) -> list[dict]:
    """Rows as training writes them, of a run on the pictures."""
    rows = []
    for step in trainer.run(Pictures(apart=apart), steps, report_every):
        if step.health is not None:
            loss = step.loss.item()
            numbers = {name: value.item() for name, value in step.health.items()}
            row = {"step": step.number, "epoch": step.epoch + 1, "loss": loss, "agreement": -loss / 4, "lr": step.lr}
            rows.append(row | numbers)
    return rows
