"""Process groups: start processes, let them meet, and average over them."""

import json
import multiprocessing
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pixpro.errors import UserError
from pixpro.training.machine import require_usable_gpus
from pixpro.training.processes import Process
from pixpro.training.supervision import supervise
from pixpro.training.watchdog import OWN_WORK

RENDEZVOUS = "PIXPRO_RENDEZVOUS"


def launch(function: Callable[..., int], nproc: int, *args: Any) -> int:
    """Run function(*args) in nproc processes on this machine; each calls `join` to meet the others.

    function must be importable by name; what it returns is its process's exit code. Returns 0, or the exit code of
    the first process that failed, after the others were ended (see `supervise`).
    """
    try:
        scratch = tempfile.TemporaryDirectory(prefix="pixpro-")
    except OSError as error:
        raise UserError(
            f"no folder for temporary files ({error.strerror}); set TMPDIR to one that can be written"
        ) from None
    with scratch as folder:
        store = Path(folder).resolve() / "store"
        context = multiprocessing.get_context("spawn")
        arguments = [(rank, nproc, f"file://{store}", function, args) for rank in range(nproc)]
        return supervise(
            [context.Process(target=_launched, args=each) for each in arguments], partial(observer, store, nproc)
        )


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
    require_usable_gpus()
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
        attempt = meet(store, rank, world_size, timeout)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",  # what processes say needs no GPU
            store=dist.PrefixStore(f"{attempt}/group", store),
            rank=rank,
            world_size=world_size,
            timeout=(OWN_WORK + 1) * timeout,  # the watchdog, which can say more, comes first
        )
        own = dist.PrefixStore(f"{attempt}/run", store.clone())  # not to wait while torch waits on the other
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(no_meeting(error, rank, world_size, timeout)) from None
    return Process(rank, world_size, local_world_size, device, own)


def meet(store: dist.Store, rank: int, world_size: int, timeout: timedelta) -> str:
    """Wait for the other processes of this attempt; returns its name, which no earlier attempt has had.

    torchrun keeps one store over all attempts, with what died processes left in it, and its count of restarts may
    differ between nodes. So each process writes a new name, and the main one shows the list of those that it sees
    until all have found their own in it: a list with a process's new name is of this attempt.
    """
    mine, shown, deadline = uuid.uuid4().hex, None, time.monotonic() + timeout.total_seconds()
    store.set(f"meeting/{rank}", mine)
    while time.monotonic() < deadline:
        if rank == 0:
            keys = [f"meeting/{other}" for other in range(world_size)]
            there = [store.get(key).decode() if store.check([key]) else "" for key in keys]
            if there != shown:
                store.set("meeting", json.dumps(there))
                shown = there
            if all(store.check([f"{mine}/met/{other}"]) for other in range(1, world_size)):
                return mine
        elif store.check(["meeting"]):
            there = json.loads(store.get("meeting"))
            if there[rank : rank + 1] == [mine]:
                store.set(f"{there[0]}/met/{rank}", "")
                return there[0]
        time.sleep(0.02)
    raise TimeoutError("the store is there, the processes are not")


def observer(path: Path, nproc: int) -> Process | None:
    """A voice for the parent of launched processes, without a rank; None when they have not met."""
    store = dist.FileStore(str(path), nproc)
    if not store.check(["meeting"]):
        return None
    attempt = json.loads(store.get("meeting"))[0]
    return Process(-1, nproc, nproc, torch.device("cpu"), dist.PrefixStore(f"{attempt}/run", store))


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


def mean_numbers(
    numbers: Mapping[str, Tensor | float], device: torch.device, largest: Collection[str] = ()
) -> dict[str, float]:
    """The mean of each number over all processes, which give the same names in the same order; one exchange.

    largest: of these the largest is taken, where the mean would hide a process that holds up the others.
    """
    values = torch.stack([torch.as_tensor(value, dtype=torch.float64, device=device) for value in numbers.values()])
    of_each = [values]
    if dist.is_initialized():
        of_each = [torch.empty_like(values) for _ in range(dist.get_world_size())]
        dist.all_gather(of_each, values)
    stacked = torch.stack(of_each)
    means, most = stacked.mean(dim=0).tolist(), stacked.amax(dim=0).tolist()
    return {name: most[i] if name in largest else means[i] for i, name in enumerate(numbers)}


def all_agree(answer: bool, device: torch.device) -> bool:
    """Whether all processes say yes; each must ask."""
    return mean_numbers({"answer": float(answer)}, device)["answer"] == 1.0


def copy_from_main(model: nn.Module) -> None:
    """Give a model the parameters and buffers that it has in the main process; all processes call it."""
    if dist.is_initialized():
        for tensor in model.state_dict().values():
            whole = tensor.contiguous()
            dist.broadcast(whole, src=0)
            tensor.copy_(whole)
