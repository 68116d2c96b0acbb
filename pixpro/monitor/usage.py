"""What training takes of the machine: images per second, time spent waiting for data, memory."""

import os
import resource
import sys
from pathlib import Path

import torch

GB = 1e9


class Speed:
    """Images per second and the share of time spent waiting for data, since the last reading."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.steps, self.seconds, self.waited = 0, 0.0, 0.0

    def note(self, seconds: float, waited: float) -> None:
        """Count one step: its whole time, and what of it was waiting for the loader."""
        self.steps, self.seconds, self.waited = self.steps + 1, self.seconds + seconds, self.waited + waited

    def read(self) -> dict[str, float]:
        """Means over the steps counted since the last reading."""
        speed, wait = self.batch_size * self.steps / self.seconds, self.waited / self.seconds
        self.steps, self.seconds, self.waited = 0, 0.0, 0.0
        return {"images_per_second": speed, "data_wait": wait}


def peak_memory(device: torch.device) -> float:
    """Most bytes that this process has held at once: on the GPU, or in the machine's memory when it trains there."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def memory_limit(device: torch.device) -> float:
    """Bytes that training may take on the device: what others leave of the GPU's, or the machine's or container's."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return float(free + torch.cuda.memory_reserved(device))
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    try:
        return min(total, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no cgroup, or no limit ("max")
        return total
