"""Tasks that take turns, and what their times say: the ground of all comparisons here."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date

import torch

from pixpro.data.cores import available_cores


def by_turns(tasks: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds that each task reports, round after round; the first round warms up and is left out.

    Each round starts with another task, so that none always runs after the same one.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    names = list(tasks)
    for number in range(rounds + 1):
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            spent = tasks[name]()
            if number:
                seconds[name].append(spent)
    return seconds


def elapsed(task: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device has done the task."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    task()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def median_ratio(seconds: Sequence[float], base: Sequence[float]) -> float:
    """Median over the rounds of how many times as long as the base it took."""
    return statistics.median(s / b for s, b in zip(seconds, base, strict=True))


def describe_machine(device: torch.device) -> str:
    """What a table of times needs beside it: device, cores, threads, torch, load and date."""
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return (
        f"{on}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s), Python {platform.python_version()}, "
        f"torch {torch.__version__}, load average {os.getloadavg()[0]:.1f}, {date.today()}"
    )


def machine() -> dict[str, str | int | float]:
    """The same for rows of JSON, of the first device that torch sees."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "hardware": gpu or f"CPU ({platform.machine()})",
        "device": "GPU" if gpu else "CPU",
        "cores": available_cores(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", available_cores())),
        "torch": torch.__version__,
        "load_at_the_start": round(os.getloadavg()[0], 1),
    }
