"""Fine-tuning steps, shared by detect.py and segment.py: batches -> updates, metrics, checkpoints; exact resume."""

import argparse
import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from downstream.common.precision import autocast
from downstream.common.program import resumable, settings, to_resume
from pixpro.checkpoints import checkpoint
from pixpro.errors import UserError
from pixpro.monitor.console import Pace
from pixpro.monitor.metrics import Metrics
from pixpro.training.distributed import Process
from pixpro.training.nonfinite import LOWEST_SCALE

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]  # images, and what is known of each


class Learner(NamedTuple):
    """What is trained, and what trains it; a checkpoint holds the state of each."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler


def resume(args: argparse.Namespace, learner: Learner) -> int:
    """Iterations that are done: 0, or those of the checkpoint that --resume names, whose state is loaded."""
    path = to_resume(args)
    if path is None:
        return 0
    state = resumable(path, args)
    try:
        learner.model.load_state_dict(state["model"])
        learner.optimizer.load_state_dict(state["optimizer"])
        if learner.scaler.is_enabled():
            learner.scaler.load_state_dict(state["scaler"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{path} holds another model than these settings make; start anew or use its own") from error
    return int(state["step"])


def save(args: argparse.Namespace, learner: Learner, step: int, process: Process) -> None:
    """Write the checkpoint after so many iterations, in the main process."""
    if process.is_main:
        state = {name: part.state_dict() for name, part in learner._asdict().items()}
        path = args.output_dir / checkpoint.LAST
        try:
            checkpoint.save(path, {**state, "step": step, "config": settings(args)})
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error}; make room and go on with --resume auto") from error


def train(
    args: argparse.Namespace,
    learner: Learner,
    batches: Iterator[Batch],
    *,
    learning_rate: Callable[[int], float],
    steps: range,
    process: Process,
) -> None:
    """These iterations, each with the next batch; metrics and checkpoints.

    The losses are read from the device when they are reported or saved, not in between; fp16's scaler alone reads,
    in each step, whether the gradients are finite.
    """
    model, last = learner.model.train(), steps.stop
    wrapped = DistributedDataParallel(model, broadcast_buffers=False) if process.world_size > 1 else model
    metrics = Metrics(args.output_dir, steps.start, last) if process.is_main else None
    pace, finite = Pace(steps.start), Finite(process.device)
    settled = dict(learning_rate=learning_rate, steps=steps, seed=args.seed, amp=args.amp, process=process)
    for step, losses in training_steps(learner._replace(model=wrapped), batches, **settled):
        pace.note(step)
        finite.note(step, losses["loss"])
        reported, saved = step % args.log_every == 0 or step == last, step % args.save_every == 0
        if reported or saved:
            finite.check()
            check_scale(learner.scaler)
        if metrics and reported:
            values = {**numbers(losses), "lr": learning_rate(step - 1)}
            metrics.write(step, values)
            shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            print(f"iteration {step}/{last}  {shown}  ETA {pace.left(step, last)}", flush=True)
        if saved and step < last:  # the caller saves the last one, finished
            save(args, learner, step, process)
    if metrics:
        metrics.close()


def training_steps(
    learner: Learner,
    batches: Iterator[Batch],
    *,
    learning_rate: Callable[[int], float],
    steps: range,
    seed: int,
    amp: str,
    process: Process,
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Train these steps and yield after each: how many are done, and its losses, left on the device.

    What is drawn at random in a step depends on (seed, step, rank) alone, so a resumed run goes on as it would have.
    """
    model, optimizer, scaler = learner
    for step in steps:
        images, targets = to_device(next(batches), process.device)
        torch.manual_seed(step_seed(seed, step, process.rank))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        with autocast(amp, process.device):
            losses = model(images, targets)
            total = sum(losses.values())
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()
        yield step + 1, {name: loss.detach() for name, loss in {"loss": total, **losses}.items()}


def numbers(losses: dict[str, Tensor]) -> dict[str, float]:
    """The losses as numbers, read from the device at once."""
    return dict(zip(losses, torch.stack([loss.float() for loss in losses.values()]).tolist(), strict=True))


class Finite:
    """The first loss that is not finite, kept on the device until it is asked for."""

    def __init__(self, device: torch.device) -> None:
        self.found = torch.zeros(2, device=device)  # the iteration, 0 as long as there is none, and its loss

    def note(self, iteration: int, loss: Tensor) -> None:
        """Take in the loss of the next iteration; the host does not wait for it."""
        now = torch.stack((torch.full_like(loss, iteration), loss))
        self.found = torch.where((self.found[0] > 0) | torch.isfinite(loss), self.found, now)

    def check(self) -> None:
        """UserError when there was one."""
        iteration, loss = self.found.tolist()
        if iteration:
            raise UserError(f"training diverged: the loss of iteration {iteration:.0f} is {loss}")


def check_scale(scaler: torch.amp.GradScaler) -> None:
    """UserError when fp16's gradients overflow whatever they are scaled by, so that no step is taken any more."""
    if scaler.is_enabled() and scaler.get_scale() < LOWEST_SCALE:
        raise UserError(
            "training diverged: its gradients are beyond fp16's range; take --amp bf16 or off, or less --lr"
        )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on the device."""
    images, targets = batch
    return (
        [image.to(device, non_blocking=True) for image in images],
        [{name: value.to(device, non_blocking=True) for name, value in target.items()} for target in targets],
    )


def step_seed(*numbers: int) -> int:
    """A seed of 63 bits that depends on all the numbers."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:8], "big") >> 1
