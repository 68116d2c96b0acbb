"""Runs of train.py on so many processes and cores -> what their metrics say: speed, waiting, memory, as a table."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from pixpro.errors import UserError
from pixpro.images import open_images

ROOT = Path(__file__).parents[2]


class Layout(NamedTuple):
    """Processes of a run, the CPU cores that all of them share, and the images of a step per process."""

    ranks: int
    cores: int
    batch: int


class Figures(NamedTuple):
    """What one run's metrics say about its steps after the warm-up."""

    images_per_second: float  # of all ranks; median over the rows
    data_wait: float  # share of the time, mean over the ranks
    memory_gb: float  # most that a rank held, mean over the ranks: on a GPU the GPU's


def layouts(ranks: list[int], cores: int, batch: int, on_cpu: bool) -> list[Layout]:
    """1 rank and each number of ranks, on equally many cores per rank and with `batch` images per rank: weak scaling.

    On a CPU with several ranks also 1 rank with all their cores and images: the same work without synchronisation.
    UserError when there are fewer cores than ranks.
    """
    most = max(ranks)
    each = cores // most
    if each == 0:
        raise UserError(f"{most} ranks on {cores} core(s): a core per rank is needed; give fewer --ranks")
    found = [Layout(number, number * each, batch) for number in sorted({1, *ranks})]
    return [*found, Layout(1, most * each, most * batch)] if on_cpu and most > 1 else found


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """A region in which programs are started on the first `count` of this process's cores and see no others.

    pixpro.data.cores reads them there; OMP_NUM_THREADS would be overruled by what it finds.
    """
    if not hasattr(os, "sched_setaffinity"):  # not Linux: there is nothing to choose
        yield
        return
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(mine)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def link_images(source: Path, folder: Path, count: int) -> Path:
    """A new folder with links to `count` of the source's image files, some of them several times where it has fewer.

    So an epoch is as long as a run and no step waits for the loader to start again. UserError for archives.
    """
    images = open_images([str(source)])
    files = [images.name(i) for i in range(min(count, len(images)))]
    if not all(os.path.isfile(file) for file in files):
        raise UserError(f"{source} is an archive; a folder of image files is needed here")
    folder.mkdir()
    for number in range(count):
        file = files[number % len(files)]
        (folder / f"{number:07}{Path(file).suffix}").symlink_to(file)
    return folder


def command(layout: Layout, images: Path, output: Path, options: list[str]) -> list[str]:
    """The command line of one epoch over these images, as a user would type it."""
    batch = str(layout.ranks * layout.batch)
    words = ["train.py", "--data", str(images), "--output_dir", str(output), "--batch_size", batch, "--epochs", "1"]
    several = ["--multiprocessing-distributed", "--nproc", str(layout.ranks)]
    return [*words, *options, *(several if layout.ranks > 1 else [])]


def train(layout: Layout, images: Path, output: Path, options: list[str]) -> Path:
    """metrics.jsonl of one epoch over these images by train.py; UserError when it fails."""
    words = [sys.executable, *command(layout, images, output, options)]
    environment = {**os.environ, "PIXPRO_CACHE": str(output.parent / "cache")}  # its images are not there for long
    with on_cores(layout.cores):
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise UserError(f"train.py with {layout.ranks} rank(s) ended with exit code {done.returncode}: {said}")
    return output / "metrics.jsonl"


def figures(metrics: Path, warmup: int) -> Figures:
    """What the rows of the steps after `warmup` say; UserError when there are none."""
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["step"] > warmup and "images_per_second" in row]
    if not rows:
        raise UserError(f"{metrics}: no rows after step {warmup}; more --steps are needed")
    times = [1 / row["images_per_second"] for row in rows]  # rows are of equally many images
    waited = sum(time * row["data_wait"] for time, row in zip(times, rows, strict=True))
    return Figures(
        statistics.median(row["images_per_second"] for row in rows),
        waited / sum(times),
        max(row["memory_gb"] for row in rows),
    )


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
