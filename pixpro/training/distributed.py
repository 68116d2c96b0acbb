"""Process groups: start processes, join them, average over them, and BatchNorm over all of them."""

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pixpro.errors import UserError
from pixpro.training.supervision import supervise
from pixpro.training.sync_batchnorm import CPUSyncBatchNorm

RENDEZVOUS = "PIXPRO_RENDEZVOUS"


@dataclass(frozen=True)
class Process:
    """This process's place among all, and the device it trains on."""

    rank: int
    world_size: int
    local_world_size: int  # processes on this machine
    device: torch.device
    store: dist.Store | None = None  # shared by all processes; None for a process alone

    @property
    def is_main(self) -> bool:
        """True for the one process that writes files and prints."""
        return self.rank == 0


def launch(function: Callable[..., int], nproc: int, *args: Any) -> int:
    """Run function(*args) in nproc processes on this machine; each calls `join` to meet the others.

    function must be importable by name; what it returns is its process's exit code. Returns 0, or the exit code of
    the first process that failed, after the others were ended (see `supervise`).
    """
    with tempfile.TemporaryDirectory(prefix="pixpro-") as folder:
        rendezvous = f"file://{Path(folder).resolve()}/store"
        context = multiprocessing.get_context("spawn")
        arguments = [(rank, nproc, rendezvous, function, args) for rank in range(nproc)]
        return supervise([context.Process(target=_launched, args=each) for each in arguments])


def _launched(rank: int, nproc: int, rendezvous: str, function: Callable[..., int], args: tuple) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(nproc), LOCAL_WORLD_SIZE=str(nproc))
    os.environ[RENDEZVOUS] = rendezvous
    sys.exit(function(*args))


def join(timeout: timedelta = timedelta(minutes=10)) -> Process:
    """This process's place in its group: that of `launch` or torchrun, or alone.

    Ranks use one GPU each over NCCL where there are GPUs, else gloo on the CPU. UserError when the environment makes
    no sense or the others do not come within `timeout`.
    """
    world_size = from_environment("WORLD_SIZE", 1, lowest=1)
    rank = from_environment("RANK", 0, below=world_size)
    local_rank = from_environment("LOCAL_RANK", 0)
    local_world_size = from_environment("LOCAL_WORLD_SIZE", world_size, lowest=1)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"process {local_rank} of this machine finds {torch.cuda.device_count()} GPU(s); "
                "start at most one process per GPU"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if world_size == 1:
        return Process(rank, 1, 1, device)
    where = os.environ.get(RENDEZVOUS, "env://")
    try:
        store, _, _ = next(dist.rendezvous(where, rank, world_size, timeout=timeout))
        store.set_timeout(timeout)
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=dist.PrefixStore("group", store),
            rank=rank,
            world_size=world_size,
            timeout=2 * timeout,  # the watchdog, which can say more, comes first
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(no_meeting(error, rank, world_size, timeout)) from None
    return Process(rank, world_size, local_world_size, device, dist.PrefixStore("run", store))


def from_environment(name: str, default: int, lowest: int = 0, below: int = 2**20) -> int:
    """A whole number that torchrun or SLURM left in the environment; UserError when it is none or out of range."""
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and lowest <= int(text) < below):
        raise UserError(f"environment variable {name} is {text!r}; torchrun sets it to {lowest} up to {below - 1}")
    return int(text)


def no_meeting(error: Exception, rank: int, world_size: int, timeout: timedelta) -> str:
    """Why the processes did not find each other, in one line."""
    address = f"{os.environ.get('MASTER_ADDR', '(MASTER_ADDR not set)')}:{os.environ.get('MASTER_PORT', '(no port)')}"
    text = " ".join(str(error).split())
    if "EADDRINUSE" in text or "already in use" in text:
        return f"port {address} is in use by another program; set MASTER_PORT (torchrun: --master_port) to a free one"
    if "environment variable" in text:
        return f"{text}; start the processes with torchrun, or with --multiprocessing-distributed"
    return (
        f"process {rank} did not meet the other {world_size - 1} within {timeout.total_seconds():.0f} s "
        f"({text[:160]}); rendezvous at {address}: check that all nodes run the same command and can reach it"
    )


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


def mean_numbers(numbers: dict[str, Tensor | float], device: torch.device) -> dict[str, float]:
    """The mean of each number over all processes, which give the same names in the same order; one exchange."""
    values = [torch.as_tensor(value, dtype=torch.float64, device=device) for value in numbers.values()]
    return dict(zip(numbers, mean_over_processes(torch.stack(values)).tolist(), strict=True))


def synchronise_batchnorm(model: nn.Module, process: Process) -> nn.Module:
    """The model with BatchNorm statistics taken over all processes; unchanged when there is one."""
    if process.world_size == 1:
        return model
    if process.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return CPUSyncBatchNorm.convert(model)


@contextmanager
def together(process: Process, name: str) -> Iterator[None]:
    """A region in which a UserError of any process is raised by all, so that none waits for one that has left.

    name: another one for each region. Inside, processes must not communicate.
    """
    mistake: UserError | None = None
    try:
        yield
    except UserError as error:
        mistake = error
    if process.store is not None:
        if mistake is not None:
            process.store.set(f"{name}/mistake", str(mistake))
        if process.store.add(f"{name}/arrived", 1) == process.world_size:
            process.store.set(f"{name}/all", "")
        process.store.wait([f"{name}/all"])
        if process.store.check([f"{name}/mistake"]):
            raise UserError(process.store.get(f"{name}/mistake").decode()) from None
    elif mistake is not None:
        raise mistake


def require_equal(process: Process, settings: dict[str, Any]) -> None:
    """UserError, on all processes, unless all have the same settings; names one that differs."""
    if process.store is None:
        return
    if process.is_main:
        process.store.set("settings", json.dumps(settings, sort_keys=True))
    with together(process, "settings of all"):
        main = json.loads(process.store.get("settings"))
        for name, value in settings.items():
            if main.get(name) != value:
                raise UserError(
                    f"process {process.rank} has {name} = {value}, process 0 has {main.get(name)}; "
                    "start all processes with the same command, the same data and the same code"
                )


def from_main(process: Process, contents: Any) -> Any:
    """The contents that the main process gives; what the others give is ignored."""
    if process.world_size == 1:
        return contents
    box = [contents]
    dist.broadcast_object_list(box, device=process.device)
    return box[0]
