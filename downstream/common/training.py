"""Fine-tuning steps, shared by detect.py and segment.py: batches -> updates, metrics, checkpoints; exact resume."""

import argparse
import hashlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from downstream.common.program import resumable, settings, to_resume
from pixpro.checkpoints import checkpoint
from pixpro.errors import UserError
from pixpro.monitor.console import Pace
from pixpro.monitor.metrics import Metrics
from pixpro.training.distributed import Process

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]  # images, and what is known of each


def resume(args: argparse.Namespace, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Iterations that are done: 0, or those of the checkpoint that --resume names, whose state is loaded."""
    path = to_resume(args)
    if path is None:
        return 0
    state = resumable(path, args)
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{path} holds another model than these settings make; start anew or use its own") from error
    return int(state["step"])


def save(
    args: argparse.Namespace, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, process: Process
) -> None:
    """Write the checkpoint after so many iterations, in the main process."""
    if process.is_main:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        path = args.output_dir / checkpoint.LAST
        try:
            checkpoint.save(path, {**state, "config": settings(args)})
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error}; make room and go on with --resume auto") from error


def train(
    args: argparse.Namespace,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    *,
    learning_rate: Callable[[int], float],
    first: int,
    last: int,
    process: Process,
) -> None:
    """Iterations first..last - 1 with the batches, of which the first is that of `first`; metrics and checkpoints."""
    wrapped = DistributedDataParallel(model, broadcast_buffers=False) if process.world_size > 1 else model
    metrics = Metrics(args.output_dir, first, last) if process.is_main else None
    pace = Pace(first)
    for step, values in training_steps(
        wrapped.train(),
        optimizer,
        batches,
        learning_rate=learning_rate,
        first=first,
        last=last,
        seed=args.seed,
        process=process,
    ):
        pace.note(step)
        if metrics and (step % args.log_every == 0 or step == last):
            metrics.write(step, values)
            numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            print(f"iteration {step}/{last}  {numbers}  ETA {pace.left(step, last)}", flush=True)
        if step % args.save_every == 0 and step < last:  # the caller saves the last one, finished
            save(args, model, optimizer, step, process)
    if metrics:
        metrics.close()


def training_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    *,
    learning_rate: Callable[[int], float],
    first: int,
    last: int,
    seed: int,
    process: Process,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train steps first..last - 1 and yield after each: how many are done, its losses (here) and learning rate.

    What is drawn at random in a step depends on (seed, step, rank) alone, so a resumed run goes on as it would have.
    """
    for step in range(first, last):
        images, targets = to_device(next(batches), process.device)
        torch.manual_seed(step_seed(seed, step, process.rank))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        losses = model(images, targets)
        total = sum(losses.values())
        if not torch.isfinite(total):
            raise UserError(f"training diverged: the loss of iteration {step + 1} is {total.item()}")
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        values = {name: loss.item() for name, loss in losses.items()}
        yield step + 1, {"loss": total.item(), **values, "lr": learning_rate(step)}


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
