"""Batches -> optimizer steps: the training loop, one yielded step at a time."""

import random
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pixpro.data import Batch, Loader
from pixpro.data.augment import augment
from pixpro.data.prefetch import copy_stream, prefetch
from pixpro.data.views import View
from pixpro.errors import UserError
from pixpro.method.model import DensePretraining
from pixpro.monitor.health import health, observe
from pixpro.training.nonfinite import LOWEST_SCALE, Buffers, all_finite, limit_scale, loss_gradient
from pixpro.training.sync_batchnorm import BatchCounters


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
    bad: bool  # loss or gradients were not finite, so that it changed nothing; too large a scale of fp16 is not bad
    images: list[int]  # the images of this process
    health: dict[str, Tensor] | None  # this process's numbers of `pixpro.monitor.health`, in steps that are reported


class Trainer:
    """One model with all that a step needs; `run` yields the steps.

    lr_at, momentum_at: functions of the global step (from 0). amp_dtype: None for full precision. seed: together with
    the step's number it seeds the layers that draw at random (drop path), so that a resumed run draws the same.
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
        seed: str | None = None,
        distributed: bool = False,
    ) -> None:
        self.core = model
        self.counters: BatchCounters | None = None  # until `join_counters`, each BatchNorm counts for itself
        self.model: nn.Module = model
        if distributed:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # the successor of broadcast_buffers is too young
                # Buffers are equal on all ranks already: BatchNorm is synchronised.
                self.model = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
        self.optimizer = optimizer
        self.device = device
        self.lr_at, self.momentum_at = lr_at, momentum_at
        self.amp_dtype = amp_dtype
        self.accumulation = accumulation
        self.seed = seed
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype == torch.float16)
        self.buffers = Buffers(model.buffers())
        self.stream: torch.cuda.Stream | None = None  # on which batches are copied
        self.good_step = 0  # the last step that changed the weights or fp16's scale: what `state` is the state of

    def join_counters(self) -> None:
        """From now on, count the batches of all BatchNorms at once; `run` begins with it.

        Not done when the trainer is made, as `load_state` may still refuse what it is given.
        """
        self.counters = self.counters or BatchCounters((self.core.encoder, self.core.momentum_encoder))

    def run(
        self,
        loader: Loader,
        last_step: int,
        report_every: int = 1,
        ready: Callable[[int], AbstractContextManager] = nullcontext,
    ) -> Iterator[Step]:
        """Train from the step of the state on (0 at the start) until last_step are done, yielding after each.

        Every report_every steps and at the end of each epoch the step comes with its health. ready: makes, for a step's
        number, the region in which its images are read; what it raises at its end comes before the step.
        """
        self.join_counters()
        self.stream = self.stream or copy_stream(self.device)
        number = self.good_step
        while number < last_step:
            epoch, position = divmod(number, len(loader))
            loader.set_position(epoch, position)
            batches = prefetch(loader, self.device, self.stream)
            for _ in range(position, min(len(loader), position + last_step - number)):
                started = time.perf_counter()
                with ready(number + 1):
                    micro_batches = [next(batches) for _ in range(self.accumulation)]
                    waited = time.perf_counter() - started
                reported = (number + 1) % report_every == 0 or (number + 1) % len(loader) == 0
                with observe(self.core) if reported else nullcontext() as seen:
                    loss, bad = self.step(micro_batches, number)
                number += 1
                self.good_step = self.good_step if bad else number
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
                    bad,
                    torch.cat([batch.index for batch in micro_batches]).tolist(),
                    health(seen, self.core, self.optimizer) if seen is not None else None,
                )

    def step(self, micro_batches: list[Batch], number: int) -> tuple[Tensor, bool]:
        """One optimizer step on the micro-batches of global step `number`: this process's mean loss, and `Step.bad`.

        With gradients that are not finite, on whichever process, the step is skipped: everything stays as it was, but
        for fp16's scale, which is lowered. While it can be lowered, such a step is not bad.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr_at(number)
        self.optimizer.zero_grad(set_to_none=True)
        if self.seed is not None:
            torch.manual_seed(random.Random(f"{self.seed} {number}").getrandbits(63))
        self.buffers.remember()
        total = torch.zeros((), device=self.device)
        for index, batch in enumerate(micro_batches):
            more = index < len(micro_batches) - 1
            with self.model.no_sync() if more and isinstance(self.model, DistributedDataParallel) else nullcontext():
                loss = self.loss(batch) / len(micro_batches)
                if self.counters:
                    self.counters.add(2)  # both views
                self.scaler.scale(loss).backward(loss_gradient(loss))
            total += loss.detach()
        self.scaler.unscale_(self.optimizer)
        bad = False
        if not all_finite(p.grad for p in self.core.parameters() if p.grad is not None):
            bad = not (self.scaler.is_enabled() and self.scaler.get_scale() > LOWEST_SCALE)
            self.buffers.restore()
        else:
            self.optimizer.step()  # not through the scaler, which would wait for the device to ask the same again
            # Equal to the official order, which moves the key network inside the next forward.
            self.core.update_momentum(self.momentum_at(number + 1))
        self.scaler.update()
        limit_scale(self.scaler, self.device)
        return total, bad

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
            "step": self.good_step,
        }

    def load_state(self, state: dict) -> None:
        """Take up the state of a checkpoint; UserError when it is that of another model.

        The optimizer's settings (weight decay, momentum, ...) stay this trainer's.
        """
        try:
            self.core.load_state_dict(state["model"])
            own = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
            self.optimizer.load_state_dict(state["optimizer"])
            for group, settings in zip(self.optimizer.param_groups, own, strict=True):
                group.update(settings)
            if state["scaler"]:  # empty in a run that needed none; this one starts with fp16's first scale then
                self.scaler.load_state_dict(state["scaler"])
            self.good_step = state["step"]
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"the checkpoint does not fit this model and optimizer ({reason})") from None
