"""What every contender of the step benchmark gets: one network, one batch, one precision, the usual step."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from pixpro.data.views import View

LR, WEIGHT_DECAY, MOMENTUM = 0.1, 1e-5, 0.99


class Contestant(NamedTuple):
    """A contender that is ready to run."""

    model: nn.Module  # all that it trains
    run: Callable[[], Tensor]  # one step; its loss


@dataclass(frozen=True)
class Case:
    """The settings that the contenders share; views are normalised, contiguous and on the device."""

    arch: str
    hidden_dim: int
    dim: int
    view1: View
    view2: View
    amp_dtype: torch.dtype | None  # of our step; None: float32

    @property
    def device(self) -> torch.device:
        return self.view1.pixels.device

    def settings(self) -> dict[str, object]:
        """What `make_case` makes it from."""
        shape = {"batch_size": len(self.view1.box), "image_size": self.view1.pixels.shape[-1]}
        widths = {"hidden_dim": self.hidden_dim, "dim": self.dim}
        return {"arch": self.arch, **shape, **widths, "device": self.device, "amp_dtype": self.amp_dtype}

    def views(self, memory_format: torch.memory_format) -> tuple[View, View]:
        """Both views with their pixels in a memory format."""
        first, second = (
            View(v.pixels.contiguous(memory_format=memory_format), v.box) for v in (self.view1, self.view2)
        )
        return first, second

    def autocast(self, dtype: torch.dtype | None) -> AbstractContextManager:
        """A region of mixed precision with this half-precision type; of full precision for None."""
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)


def make_case(
    arch: str,
    *,
    batch_size: int,
    image_size: int,
    device: torch.device,
    amp_dtype: torch.dtype | None,
    hidden_dim: int = 4096,
    dim: int = 256,
) -> Case:
    """A case with random pixels (mean 0, variance 1) and random boxes that overlap, every other one flipped."""
    generator = torch.Generator().manual_seed(0)
    views = []
    for _ in range(2):
        corners = torch.rand(batch_size, 2, generator=generator) * 0.4
        box = torch.cat((corners, corners + 0.5), dim=1)
        box[1::2] = box[1::2][:, [2, 1, 0, 3]]
        pixels = torch.randn(batch_size, 3, image_size, image_size, generator=generator)
        views.append(View(pixels.to(device), box.to(device)))
    return Case(arch, hidden_dim, dim, *views, amp_dtype)


def trunk(arch: str) -> tuple[nn.Sequential, int]:
    """torchvision's network up to its last map, and the channels of that."""
    network = torchvision.models.get_model(arch, weights=None, zero_init_residual=True)
    return nn.Sequential(*list(network.children())[:-2]), network.fc.in_features


def plain_step(
    case: Case, optimizer: torch.optim.Optimizer, loss_of: Callable[[], Tensor], dtype: torch.dtype | None
) -> Callable[[], Tensor]:
    """A function that runs one step as it is usually written and returns its loss; fp16 scales the loss."""
    scaler = torch.amp.GradScaler(case.device.type, enabled=dtype == torch.float16)

    def run() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with case.autocast(dtype):
            loss = loss_of()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return run
