"""Contenders -> rows: times, by turns, and peak memory of those that can run here, of the others the reason."""

import statistics
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from tabulate import tabulate

from benchmarks.measuring.memory import FREED_AT_ONCE, added_peak, in_new_process
from benchmarks.measuring.timing import by_turns, median_ratio
from benchmarks.steps.contenders import CONTENDERS, Case, make_case
from benchmarks.steps.turns import Apart, Here, attempt, contestants
from pixpro.training.machine import keep_freed_memory

Row = dict[str, str | float | None]
BASES = ("ours", "floor", "floor_encoder")


def measure(
    case: Case, names: Iterable[str], rounds: int, kind: type[Here] | type[Apart], before: Path | None = None
) -> list[Row]:
    """One row per contender: its times, or why there are none; with an earlier checkout of ours, one for that.

    Ratios are medians over the rounds of how many times as long as ours and as the floors a step takes.
    """
    names = list(names)
    with contestants(names, case, kind, before) as ready:
        names = list(ready)
        missing = {name: each.reason for name, each in ready.items() if each.reason}

        def turn(name: str) -> float:
            if name in missing:
                return float("nan")
            seconds, reason = ready[name].turn()
            if reason:
                missing[name] = reason
            return seconds

        seconds = by_turns({name: partial(turn, name) for name in names if name not in missing}, rounds)
    seconds = {name: spent for name, spent in seconds.items() if name not in missing}  # some fail on the way
    return [row_of(name, case, seconds, missing.get(name, "")) for name in names]


def row_of(name: str, case: Case, seconds: dict[str, list[float]], reason: str) -> Row:
    """The figures of one contender."""
    title = "ours, the checkout named --before" if name == "before" else CONTENDERS[name].title
    row: Row = {"name": name, "title": title, "reason": reason}
    if reason:
        return row
    own = seconds[name]
    row |= {"images/s": len(case.view1.box) / statistics.median(own), "ms": statistics.median(own) * 1e3}
    row |= {"ms, least": min(own) * 1e3, "ms, most": max(own) * 1e3}
    for base in BASES:
        row[f"time / {base}"] = median_ratio(own, seconds[base]) if base in seconds else None
    return row


def with_peaks(rows: list[Row], case: Case) -> list[Row]:
    """The rows with the peak memory of each contender that ran, alone: on a CPU in a new process."""
    for row in rows:
        name = row["name"]
        if row["reason"] or name == "before":
            continue
        if case.device.type == "cuda":
            row["peak GiB"], _ = attempt(CONTENDERS[name], partial(peak_of_steps, name, case))
        else:
            row["peak GiB"] = in_new_process(peak_of_new, name, case.settings(), environment=FREED_AT_ONCE)
    return rows


def peak_of_new(name: str, settings: dict) -> float:
    """`peak_of_steps` of a case that this process makes."""
    return peak_of_steps(name, make_case(**settings))


def peak_of_steps(name: str, case: Case) -> float:
    """GiB that building the contender and two of its steps add to what this process holds.

    Two, as the optimizer's own memory appears at the end of the first.
    """
    contender = CONTENDERS[name]
    if case.device.type == "cpu" and contender.keeps_memory:
        keep_freed_memory()

    def build_and_run() -> None:
        contestant = contender.build(case)
        for _ in range(2):
            contestant.run()

    return added_peak(build_and_run, case.device)


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    heads = ["step", "images/s", "ms (least to most)", "time / ours", "/ trunk", "/ trunk and projector", "peak GiB"]
    cells = []
    for row in rows:
        if row["reason"]:
            cells.append([row["title"], row["reason"]])
            continue
        figures = [row[f"time / {base}"] for base in BASES] + [row.get("peak GiB")]
        times = f"{row['ms']:.0f} ({row['ms, least']:.0f} to {row['ms, most']:.0f})"
        told = [None if figure is None else f"{figure:.2f}" for figure in figures]
        cells.append([row["title"], f"{row['images/s']:.2f}", times, *told])
    return tabulate(cells, heads, "github", disable_numparse=True)
