"""How the training process and its loader workers share out the machine's cores."""

import math
import os
from pathlib import Path


def available_cores() -> int:
    """Cores that this process may use: its affinity, and a container's quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no cgroup, or no limit ("max")
        pass
    return max(cores, 1)


def share_cores(processes: int, on_gpu: bool, cores: int | None = None) -> tuple[int, int]:
    """(workers, threads) of each of `processes` training processes on this machine.

    On a GPU the training process needs one core and each worker feeds about 400 images/s: more than 12 only crowd the
    memory bus. On a CPU the network takes over 95 % of the work, so one worker in sixteen cores keeps up, and below
    four cores the training process had better decode by itself.
    """
    each = max((available_cores() if cores is None else cores) // max(processes, 1), 1)
    if on_gpu:
        return max(min(each - 1, 12), 1), 1
    workers = 0 if each < 4 else -(-each // 16)
    return workers, each - workers
