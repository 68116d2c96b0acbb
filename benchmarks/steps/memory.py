"""Peak memory of two steps of one contender alone: by a new process on the CPU, by the allocator on a GPU."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.measuring.memory import FREED_AT_ONCE, held_gib, peak_gib
from benchmarks.steps.contenders import CONTENDERS, Case
from pixpro.training.machine import keep_freed_memory


def peak_of_steps(name: str, case: Case) -> float:
    """GiB that building the contender and two of its steps add to what this process holds.

    Two, as the optimizer's own memory appears at the end of the first. On the CPU right only in a new process, as
    whatever a process once held counts.
    """
    if case.device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(case.device)
        start = torch.cuda.memory_allocated(case.device)
    else:
        if CONTENDERS[name].keeps_memory:
            keep_freed_memory()
        start = held_gib()
    contestant = CONTENDERS[name].build(case)
    for _ in range(2):
        contestant.run()
    if case.device.type == "cuda":
        return (torch.cuda.max_memory_allocated(case.device) - start) / 2**30
    return peak_gib() - start


def peak_in_child(name: str, settings: list[str]) -> float | None:
    """`peak_of_steps` by a new process with these settings of `step.py`; None when it fails."""
    script = Path(__file__).parents[1] / "step.py"
    command = [sys.executable, str(script), "--peak_of", name, *settings]
    done = subprocess.run(command, env={**os.environ, **FREED_AT_ONCE}, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.split()[-1]) if done.returncode == 0 else None
