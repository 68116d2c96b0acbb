"""How the training process and its loader workers share out the machine's cores."""

import math
import os
import sys
from pathlib import Path


def available_cores() -> int:
    """Cores that this process may use: its affinity, and a container's quota where there is one."""
    return max(min(affinity(), quota()), 1)


def affinity() -> int:
    """Cores that the system lets this process run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota() -> int:
    """Cores' worth of time that a container grants to all its processes together."""
    try:
        granted, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.ceil(int(granted) / int(period))
    except (OSError, ValueError):  # no cgroup, or no limit ("max")
        return sys.maxsize


def bound_by_slurm(processes: int) -> bool:
    """Whether SLURM started each of `processes` on cores of its own, so that the affinity is not to be divided again.

    With `--cpu-bind=none`, or under torchrun in a single task, all share what they see.
    """
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0]  # as "8(x2)": 8 on each of two nodes
    each = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return tasks == str(processes) and each.isdecimal() and int(each) <= affinity() < 2 * int(each)


def share_cores(processes: int, on_gpu: bool, cores: int | None = None) -> tuple[int, int]:
    """(workers, threads) of each of `processes` training processes on this machine.

    On a GPU the training process needs one core and each worker feeds about 400 images/s: more than 12 only crowd the
    memory bus. On a CPU the network takes over 95 % of the work, so one worker in sixteen cores keeps up, and below
    four cores the training process had better decode by itself.
    """
    processes = max(processes, 1)
    if cores is None and bound_by_slurm(processes):
        each = max(min(affinity(), quota() // processes), 1)
    else:
        each = max((available_cores() if cores is None else cores) // processes, 1)
    if on_gpu:
        return max(min(each - 1, 12), 1), 1
    workers = 0 if each < 4 else -(-each // 16)
    return workers, each - workers
