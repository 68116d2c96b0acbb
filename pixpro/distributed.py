"""Process groups: start processes, join them, average over them, and BatchNorm over all of them."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from pixpro.sync_batchnorm import CPUSyncBatchNorm

RENDEZVOUS = "PIXPRO_RENDEZVOUS"


@dataclass(frozen=True)
class Process:
    """This process's place among all, and the device it trains on."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True for the one process that writes files and prints."""
        return self.rank == 0


def launch(function: Callable[..., None], nproc: int, *args: Any) -> None:
    """Run function(*args) in nproc processes on this machine; each calls `join` to meet the others.

    function must be importable by name. When a process fails, the others are ended and its error is raised here.
    """
    with tempfile.TemporaryDirectory(prefix="pixpro-") as folder:
        rendezvous = f"file://{Path(folder).resolve()}/store"
        mp.start_processes(_launched, args=(nproc, rendezvous, function, args), nprocs=nproc, start_method="spawn")


def _launched(rank: int, nproc: int, rendezvous: str, function: Callable[..., None], args: tuple) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(nproc), LOCAL_WORLD_SIZE=str(nproc))
    os.environ[RENDEZVOUS] = rendezvous
    function(*args)


def join(timeout: timedelta = timedelta(minutes=10)) -> Process:
    """This process's place in its group: that of `launch` or torchrun, or alone.

    Ranks use one GPU each over NCCL where there are GPUs, else gloo on the CPU, whose cores they share out.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
        neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        if neighbours > 1:
            torch.set_num_threads(max(1, available_cores() // neighbours))
    if world_size > 1:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=os.environ.get(RENDEZVOUS, "env://"),
            rank=rank,
            world_size=world_size,
            timeout=timeout,
        )
    return Process(rank, world_size, device)


def leave() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def available_cores() -> int:
    """CPU cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes; the tensor itself when there is one."""
    if not dist.is_initialized():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def synchronise_batchnorm(model: nn.Module, process: Process) -> nn.Module:
    """The model with BatchNorm statistics taken over all processes; unchanged when there is one."""
    if process.world_size == 1:
        return model
    if process.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return CPUSyncBatchNorm.convert(model)
