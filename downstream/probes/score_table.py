"""Scores of several networks over several seeds -> mean and spread, as a table for people and JSON for programs."""

import math
from collections.abc import Sequence

from tabulate import tabulate

Scores = dict[str, dict[str, list[float]]]  # task -> network -> one value for each seed


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; no spread for a single value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def as_json(scores: Scores) -> dict:
    """The same with mean and standard deviation beside the values."""
    return {
        task: {
            network: dict(zip(("mean", "std"), mean_and_spread(values), strict=True)) | {"values": values}
            for network, values in networks.items()
        }
        for task, networks in scores.items()
    }


def as_table(scores: Scores) -> str:
    """A row for each task, a column for each network, in per cent."""
    networks = list(dict.fromkeys(network for row in scores.values() for network in row))
    rows = [
        [task, *(cell(row[network]) if network in row else "" for network in networks)] for task, row in scores.items()
    ]
    alignment = ["left", *["right"] * len(networks)]
    return tabulate(rows, ["score, %", *networks], disable_numparse=True, colalign=alignment)


def cell(values: Sequence[float]) -> str:
    """Mean and spread in per cent."""
    mean, spread = mean_and_spread(values)
    return f"{100 * mean:.1f}" if spread is None else f"{100 * mean:.1f} ± {100 * spread:.1f}"
