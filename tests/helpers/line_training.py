"""The least that the fine-tuning loop trains: one linear layer, its batches and settings, a process alone."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from pixpro.training.processes import Process

CPU = torch.device("cpu")
ALONE = Process(0, 1, 1, CPU)


class Line(nn.Module):
    """Two losses of one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 3)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        out = self.layer(torch.stack(images))
        return {"loss_square": out.square().mean(), "loss_shift": (out - targets[0]["value"]).abs().mean()}


def settings(folder: Path, **changed: object) -> argparse.Namespace:
    common = dict(output_dir=folder, seed=0, amp="off", log_every=3, save_every=100, resume="")
    return argparse.Namespace(**common | changed)


def rows(bad: int | None = None) -> Iterator:
    """Endless batches of two; number `bad` holds a NaN."""
    draw, number = torch.Generator().manual_seed(1), 0
    while True:
        number += 1
        images = list(torch.randn(2, 6, generator=draw))
        images[0] = images[0] * (torch.nan if number == bad else 1)
        yield images, [{"value": torch.randn((), generator=draw)}] * 2
