"""Process groups: start processes, join them, average over them, and BatchNorm over all of them."""

import os
import sys
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
    local_world_size: int  # processes on this machine
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True for the one process that writes files and prints."""
        return self.rank == 0


def launch(function: Callable[..., int], nproc: int, *args: Any) -> int:
    """Run function(*args) in nproc processes on this machine; each calls `join` to meet the others.

    function must be importable by name; what it returns is its process's exit code. Returns 0, or the exit code of
    the first process that failed, after the others were ended. An exception in a process is raised here.
    """
    with tempfile.TemporaryDirectory(prefix="pixpro-") as folder:
        rendezvous = f"file://{Path(folder).resolve()}/store"
        try:
            mp.start_processes(_launched, args=(nproc, rendezvous, function, args), nprocs=nproc, start_method="spawn")
        except mp.ProcessExitedException as error:
            return error.exit_code
    return 0


def _launched(rank: int, nproc: int, rendezvous: str, function: Callable[..., int], args: tuple) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(nproc), LOCAL_WORLD_SIZE=str(nproc))
    os.environ[RENDEZVOUS] = rendezvous
    sys.exit(function(*args))


def join(timeout: timedelta = timedelta(minutes=10)) -> Process:
    """This process's place in its group: that of `launch` or torchrun, or alone.

    Ranks use one GPU each over NCCL where there are GPUs, else gloo on the CPU.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if world_size > 1:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=os.environ.get(RENDEZVOUS, "env://"),
            rank=rank,
            world_size=world_size,
            timeout=timeout,
        )
    return Process(rank, world_size, int(os.environ.get("LOCAL_WORLD_SIZE", world_size)), device)


def leave() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


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
