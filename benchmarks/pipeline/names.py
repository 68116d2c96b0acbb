"""Start-up and memory of workers with as many file names as ImageNet has: real folders, hard links to empty files."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.measuring.timing import by_turns, median_ratio
from pixpro.images import open_images
from pixpro.images.listing import RACY_NS

PER_FOLDER = 1281
OURS = Path(__file__).parents[2]
START = """
import sys, time
from pixpro.images import open_images
started = time.process_time()
open_images([sys.argv[1]])
print(time.process_time() - started)
"""


def make_tree(root: Path, count: int) -> None:
    """`count` names in folders of 1281, without as many inodes."""
    for first in range(0, count, PER_FOLDER):
        folder = root / f"n{first // PER_FOLDER:08}"
        folder.mkdir()
        one = folder / f"{folder.name}_{0:08}.JPEG"
        one.touch()
        for i in range(1, min(PER_FOLDER, count - first)):
            os.link(one, folder / f"{folder.name}_{i:08}.JPEG")


def private_megabytes() -> float:
    """Memory that only this process holds."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


class Indexing(Dataset):
    """Looks names up, as a worker does before it reads; each item is the process's private memory."""

    def __init__(self, names: Callable[[int], str], count: int) -> None:
        self.names, self.count = names, count

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, indices: list[int]) -> list[float]:
        for i in indices:
            assert self.names(i)
        return [private_megabytes()]


def growth(names: Callable[[int], str], count: int, start_method: str) -> float:
    """MB that one of two workers gains while both together look every name up once."""
    order = torch.utils.data.BatchSampler(torch.randperm(count).tolist(), 10_000, drop_last=False)
    loader = DataLoader(
        Indexing(names, count),
        batch_sampler=order,
        num_workers=2,
        collate_fn=list,
        multiprocessing_context=start_method,
        prefetch_factor=1,
    )
    megabytes = [row[0] for row in loader]
    return megabytes[-1] - megabytes[0]


def start(checkout: Path, images: Path, cache: Path) -> float:
    """Processor seconds in which the code of a checkout has the names, in a process of its own."""
    env = os.environ | {"PIXPRO_CACHE": str(cache), "PYTHONPATH": str(checkout)}
    done = subprocess.run([sys.executable, "-c", START, images], cwd=checkout, env=env, check=True, capture_output=True)
    return float(done.stdout)


def starts(images: Path, caches: Path, before: Path, rounds: int) -> list[tuple[str, str]]:
    """(what, figure) rows of ours beside another checkout of this project, by turns."""
    checkouts = {"ours": OURS, "before": before}
    rows = []

    def turn(name: str, what: str) -> float:
        # The cache of later starts is filled in the round that warms up.
        cache = caches / (f"{name} {time.monotonic()}" if what == "first start" else name)
        return start(checkouts[name], images, cache)

    for what in ("first start", "later starts"):
        seconds = by_turns({name: partial(turn, name, what) for name in checkouts}, rounds)
        ratio = median_ratio(seconds["ours"], seconds["before"])
        medians = ", ".join(f"{name} {statistics.median(spent):.2f} s" for name, spent in seconds.items())
        rows.append((f"{what}: ours / before", f"{ratio:.2f} ({medians})"))
    return rows


def measure(count: int, before: Path | None = None, rounds: int = 3) -> list[tuple[str, str]]:
    """(what, figure) rows; before: another checkout of this project, whose starts are measured too."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, PIXPRO_CACHE=f"{folder}/cache"):
        root = Path(folder, "images")
        root.mkdir()
        make_tree(root, count)
        time.sleep(RACY_NS / 1e9 + 1 if count > PER_FOLDER * 100 else 0)  # a folder changed just now is not cached
        for what in ("first start (scan)", "later starts"):
            started = time.perf_counter()
            source = open_images([root])
            rows.append((f"{count} names, {what}", f"{time.perf_counter() - started:.2f} s"))
        assert len(source) == count
        rows += starts(root, Path(folder, "caches"), before, rounds) if before else []
        for method in ("fork", "forkserver"):
            rows.append((f"growth per worker, {method}", f"{growth(source.name, count, method):.1f} MB"))
        tuples = [(source.name(i), 0) for i in range(count)]  # the usual list of paths and labels
        megabytes = growth(lambda i: tuples[i][0], count, "fork")
        rows.append(("growth per worker, fork, list of tuples", f"{megabytes:.1f} MB"))
    return rows
