"""Contenders -> rows: build those that can run here, let them take turns, tell the others why they cannot."""

import statistics
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch._dynamo.exc import TorchDynamoException

from benchmarks.contenders import CONTENDERS, Case, Contender, Contestant
from benchmarks.timing import by_turns, elapsed, median_ratio

Row = dict[str, str | float | None]
BASES = ("ours", "floor", "floor_encoder")


def attempt(contender: Contender, action: Callable[[], object]) -> str:
    """Do it; why it cannot be done here, or nothing."""
    try:
        action()
    except ImportError as error:
        if not contender.pip:
            raise
        return f"not installed ({error}): {contender.pip}"
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return "out of memory"
    except TorchDynamoException as error:
        return f"does not compile: {error}"
    return ""


def timed_step(contestant: Contestant, device: torch.device) -> float:
    """Seconds of one step; its gradients are freed afterwards, so that waiting contenders hold weights alone."""
    seconds = elapsed(contestant.run, device)
    contestant.model.zero_grad(set_to_none=True)
    return seconds


def measure(case: Case, names: Iterable[str], rounds: int) -> list[Row]:
    """One row per contender: its times, or why there are none.

    Ratios are medians over the rounds of how many times as long as ours and as the floors a step takes.
    """
    contestants: dict[str, Contestant] = {}
    missing: dict[str, str] = {}

    def build(name: str) -> None:
        torch.manual_seed(0)
        contestants[name] = CONTENDERS[name].build(case)

    def turn(name: str) -> float:
        spent: list[float] = []
        if name not in missing:
            reason = attempt(CONTENDERS[name], lambda: spent.append(timed_step(contestants[name], case.device)))
            if reason:
                missing[name] = reason
                del contestants[name]
        return spent[0] if spent else float("nan")

    names = list(names)
    for name in names:
        reason = attempt(CONTENDERS[name], partial(build, name))
        if reason:
            missing[name] = reason
    seconds = by_turns({name: partial(turn, name) for name in names if name not in missing}, rounds)
    seconds = {name: spent for name, spent in seconds.items() if name not in missing}  # some fail on the way
    return [row_of(name, case, seconds, missing.get(name, "")) for name in names]


def row_of(name: str, case: Case, seconds: dict[str, list[float]], reason: str) -> Row:
    """The figures of one contender."""
    row: Row = {"name": name, "title": CONTENDERS[name].title, "reason": reason}
    if reason:
        return row
    own = seconds[name]
    row |= {"images/s": len(case.view1.box) / statistics.median(own), "ms": statistics.median(own) * 1e3}
    row |= {"ms, least": min(own) * 1e3, "ms, most": max(own) * 1e3}
    for base in BASES:
        row[f"time / {base}"] = median_ratio(own, seconds[base]) if base in seconds else None
    return row


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| step | images/s | ms (least to most) | time / ours | / trunk | / trunk and projector | peak GiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["reason"]:
            lines.append(f"| {row['title']} | {row['reason']} | | | | | |")
            continue
        figures = [row[f"time / {base}"] for base in BASES] + [row.get("peak GiB")]
        told = " | ".join("" if figure is None else f"{figure:.2f}" for figure in figures)
        times = f"{row['ms']:.0f} ({row['ms, least']:.0f} to {row['ms, most']:.0f})"
        lines.append(f"| {row['title']} | {row['images/s']:.2f} | {times} | {told} |")
    return "\n".join(lines)
