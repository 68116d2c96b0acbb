"""Memory that this process holds, in GiB: now, and at most so far; and work in a new process, whose peak is its own."""

import gc
import os
import resource
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from unittest import mock

if TYPE_CHECKING:  # what it holds itself would count: imported where it is used
    import torch

Result = TypeVar("Result")

STATUS = Path("/proc/self/status")
# For a process whose peak is measured: glibc then gives freed tensors back at once, and holds no holes between them.
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def peak_gib() -> float:
    """The most memory that this process has held resident so far."""
    # ru_maxrss of a process begins with what the process that started it held, on Linux.
    return _field("VmHWM") if STATUS.exists() else _ru_maxrss()


def held_gib() -> float:
    """The memory that this process holds resident; on systems that do not tell, the most so far."""
    return _field("VmRSS") if STATUS.exists() else _ru_maxrss()


def _field(name: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 2**20


def _ru_maxrss() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def added_peak(work: Callable[[], object], device: "torch.device") -> float:
    """GiB that work adds at its peak, by the allocator on a GPU.

    On the CPU right only in a new process, as whatever a process once held counts.
    """
    if device.type == "cpu":
        start = held_gib()
        work()
        return peak_gib() - start
    import torch

    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    start = torch.cuda.memory_allocated(device)
    work()
    return (torch.cuda.max_memory_allocated(device) - start) / 2**30


def in_new_process(
    function: Callable[..., Result], *args: object, environment: Mapping[str, str] | None = None
) -> Result | None:
    """What function(*args) returns in a new process; None when it fails, as it does where memory ends."""
    with (
        mock.patch.dict(os.environ, environment or {}),
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        try:
            return pool.submit(function, *args).result()
        except RuntimeError as error:  # of torch, or that the process was ended
            print(f"{function.__name__} failed: {error}", file=sys.stderr)
            return None
