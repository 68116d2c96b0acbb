"""Memory that this process holds, in GiB: now, and at most so far."""

import resource
import sys
from pathlib import Path

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
