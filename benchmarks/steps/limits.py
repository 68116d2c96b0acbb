"""What a GPU could do: the largest batch that fits, the kernels of our step, its share of the peak FLOP/s."""

import statistics
from collections.abc import Callable
from functools import partial

import torch
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.steps.contenders import CONTENDERS, Case
from benchmarks.steps.turns import attempt, timed_step

FIRST, LAST = 32, 8192


def largest_batch(seconds_of: Callable[[int], float]) -> tuple[int, float] | None:
    """The largest power of two from 32 on that does not run out of memory, and its seconds; None if 32 does."""
    found, batch = None, FIRST
    while batch <= LAST:
        try:
            found = batch, seconds_of(batch)
        except torch.OutOfMemoryError:
            break
        batch *= 2
    return found


def largest_batches(names: list[str], case_of: Callable[..., Case], rounds: int) -> str:
    """A table of each contender's largest batch, alone on the device, and its images/s there.

    case_of: makes the case of a `batch_size`.
    """
    rows = []

    def seconds_of(name: str, batch: int) -> float:
        torch.cuda.empty_cache()
        case = case_of(batch_size=batch)
        contestant = CONTENDERS[name].build(case)
        timed_step(contestant, case.device)
        return statistics.median(timed_step(contestant, case.device) for _ in range(rounds))

    for name in names:
        contender = CONTENDERS[name]
        found, reason = attempt(contender, partial(largest_batch, partial(seconds_of, name)))
        if found:
            batch, seconds = found
            rows.append([contender.title, batch, f"{batch / seconds:.1f}"])
        else:
            rows.append([contender.title, reason or f"{FIRST} is out of memory"])
    return tabulate(rows, ["step", "largest batch (power of two)", "images/s"], "github", disable_numparse=True)


def profile_lines(case: Case, rounds: int, peak_tflops: float | None) -> list[str]:
    """The ten kernels on which our step spends most of its time, and its achieved FLOP/s beside the device's peak."""
    contestant = CONTENDERS["ours"].build(case)
    contestant.run()
    with FlopCounterMode(display=False) as counter:
        contestant.run()
    seconds = statistics.median(timed_step(contestant, case.device) for _ in range(rounds))
    achieved = counter.get_total_flops() / seconds / 1e12
    share = f", {achieved / peak_tflops:.1%} of the given {peak_tflops:g}" if peak_tflops else ""
    on_gpu = case.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as seen:
        contestant.run()
        if on_gpu:
            torch.cuda.synchronize(case.device)
    order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    return [
        f"{counter.get_total_flops() / 1e12:.3f} TFLOP per step (convolutions and matrix products), "
        f"{achieved:.2f} TFLOP/s{share}",
        "```text",
        seen.key_averages().table(sort_by=order, row_limit=10, max_name_column_width=60),
        "```",
    ]
