"""Runs by turns -> a table: medians, their spread, and the efficiency of several ranks."""

import statistics
from collections.abc import Iterable
from typing import NamedTuple

from tabulate import tabulate

from benchmarks.scaling.layouts import Figures, Layout


class Spread(NamedTuple):
    """The median of several values, the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        values = list(values)
        return cls(statistics.median(values), min(values), max(values))


def speed_ratio(runs: list[Figures], others: list[Figures]) -> Spread:
    """Images/s of runs over those of others within the same turn: a busy moment of the machine disturbs both."""
    return Spread.of(run.images_per_second / other.images_per_second for run, other in zip(runs, others, strict=True))


def efficiency(runs: dict[Layout, list[Figures]], layout: Layout) -> Spread:
    """Images/s per rank over those of the first layout, which is one rank on its share of the cores."""
    first = next(iter(runs))
    assert first.ranks == 1 and layout.cores == first.cores * layout.ranks
    return Spread(*(value / layout.ranks for value in speed_ratio(runs[layout], runs[first])))


def rows_of(runs: dict[Layout, list[Figures]]) -> list[dict]:
    """A row per layout: medians over its runs, with (median, lowest, highest) of speed and efficiency."""
    each = next(iter(runs)).cores
    return [
        {
            **layout._asdict(),
            "images_per_second": Spread.of(run.images_per_second for run in found),
            "efficiency": efficiency(runs, layout) if layout.cores == each * layout.ranks else None,
            "data_wait": Spread.of(run.data_wait for run in found).median,
            "memory_gb": max(run.memory_gb for run in found),
        }
        for layout, found in runs.items()
    ]


def table(rows: list[dict]) -> list[str]:
    """The rows in Markdown."""
    heads = ["ranks", "cores", "images per rank", "images/s", "efficiency", "waiting for data", "memory per rank"]
    table = []
    for row in rows:
        speed, part = row["images_per_second"], row["efficiency"]
        cells = [row["ranks"], row["cores"], row["batch"], f"{speed[0]:.3g} ({speed[1]:.3g} to {speed[2]:.3g})"]
        cells += [f"{part[0]:.2f} ({part[1]:.2f} to {part[2]:.2f})" if part else "-"]
        cells += [f"{row['data_wait']:.1%}", f"{row['memory_gb']:.2f} GB"]
        table.append(cells)
    return tabulate(table, heads, "github", disable_numparse=True).splitlines()


def same_work(runs: dict[Layout, list[Figures]]) -> list[str]:
    """What several ranks cost beside one with all their cores and images, in a line; nothing where that did not run."""
    *_, most, whole = [None, *runs]
    if most is None or whole.ranks != 1:
        return []
    ratio = speed_ratio(runs[most], runs[whole])
    text = f"{most.ranks} ranks against 1 rank with the same {whole.cores} cores and {whole.batch} images: "
    return ["", f"{text}{ratio.median:.2f} times the images/s ({ratio.low:.2f} to {ratio.high:.2f})"]
