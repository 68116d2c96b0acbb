"""Batches -> optimizer steps: the training loop, one yielded step at a time."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pixpro.augment import augment
from pixpro.data import Batch, Loader
from pixpro.model import DensePretraining
from pixpro.prefetch import prefetch
from pixpro.views import View


@dataclass(frozen=True)
class Step:
    """What one optimizer step did. `number` counts from 1 over the whole run; so a run of N steps ends with N."""

    number: int
    epoch: int  # from 0
    ends_epoch: bool
    loss: Tensor  # mean over this process's images, on the device: reading it waits for the step
    lr: float
    momentum: float  # coefficient that the momentum encoder was moved with
    data_seconds: float  # waiting for the loader
    seconds: float  # whole step, waiting included
    replaced: int  # unreadable images of this process, for which others stood in


class Trainer:
    """One model with all that a step needs; `run` yields the steps.

    lr_at, momentum_at: functions of the global step (from 0). amp_dtype: None for full precision.
    """

    def __init__(
        self,
        model: DensePretraining,
        optimizer: torch.optim.Optimizer,
        *,
        device: torch.device,
        lr_at: Callable[[int], float],
        momentum_at: Callable[[int], float],
        amp_dtype: torch.dtype | None = None,
        accumulation: int = 1,
        distributed: bool = False,
    ) -> None:
        self.core = model
        self.model: nn.Module = model
        if distributed:
            # Buffers are equal on all ranks already: BatchNorm is synchronised.
            self.model = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
        self.optimizer = optimizer
        self.device = device
        self.lr_at, self.momentum_at = lr_at, momentum_at
        self.amp_dtype = amp_dtype
        self.accumulation = accumulation
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype == torch.float16)

    def run(self, loader: Loader, first_step: int, last_step: int) -> Iterator[Step]:
        """Train from step number first_step (0 at the start) until last_step are done, yielding after each."""
        number = first_step
        while number < last_step:
            epoch, position = divmod(number, len(loader))
            loader.set_position(epoch, position)
            batches = prefetch(loader, self.device)
            for _ in range(position, min(len(loader), position + last_step - number)):
                started = time.perf_counter()
                micro_batches = [next(batches) for _ in range(self.accumulation)]
                waited = time.perf_counter() - started
                loss = self.step(micro_batches, number)
                number += 1
                yield Step(
                    number,
                    epoch,
                    number % len(loader) == 0,
                    loss,
                    self.lr_at(number - 1),
                    self.momentum_at(number),
                    waited,
                    time.perf_counter() - started,
                    sum(int(batch.replaced.sum()) for batch in micro_batches),
                )

    def step(self, micro_batches: list[Batch], number: int) -> Tensor:
        """One optimizer step on the micro-batches of global step `number`; returns this process's mean loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr_at(number)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for index, batch in enumerate(micro_batches):
            waits = index < len(micro_batches) - 1 and isinstance(self.model, DistributedDataParallel)
            with self.model.no_sync() if waits else nullcontext():
                loss = self.loss(batch) / len(micro_batches)
                self.scaler.scale(loss).backward()
            total += loss.detach()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        # Equal to the official order, which moves the key network inside the next forward.
        self.core.update_momentum(self.momentum_at(number + 1))
        return total

    def loss(self, batch: Batch) -> Tensor:
        """Colour the views of a batch on the device, and compare them."""
        views = [
            View(augment(view.pixels, colour), view.box)
            for view, colour in ((batch.view1, batch.colour1), (batch.view2, batch.colour2))
        ]
        with torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
            return self.model(*views)

    def state(self) -> dict:
        """Everything that `load_state` needs to go on exactly: tensors and plain types."""
        return {
            "model": self.core.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state(self, state: dict) -> None:
        """Take up the state of a checkpoint."""
        self.core.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])


def amp_dtype(setting: str, device: torch.device) -> torch.dtype | None:
    """The half-precision type of a setting (auto, bf16, fp16, off) on a device; None for full precision.

    auto is bf16 where the device computes it natively, else fp16 on GPUs and full precision on CPUs.
    """
    if setting == "off":
        return None
    if setting != "auto":
        return {"bf16": torch.bfloat16, "fp16": torch.float16}[setting]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if torch.cpu._is_amx_tile_supported() else None
