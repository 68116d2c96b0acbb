"""Cost of the input pipeline beside the official one and beside decoding alone, on the same files in one run.

    python benchmarks/data.py                 draws 500x375 JPEG files of 100 KB and measures on them
    python benchmarks/data.py --data DIR      measures on real ones
    python benchmarks/data.py --quick         a minute's check that everything runs; its figures mean nothing

CPU milliseconds per image (both views) of one thread, by turns, medians over the rounds; ratios are medians of the
ratios within a round, so that a machine that is busy for a while disturbs both sides.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import PIL
import torch
from PIL import Image
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.measuring.timing import by_turns, elapsed, median_ratio
from benchmarks.pipeline import names, photos
from benchmarks.pipeline.official_views import OfficialViews
from pixpro.data import Loader
from pixpro.data.augment import augment
from pixpro.data.samples import Samples
from pixpro.images import Images, decode, open_images
from pixpro.images.jpeg import decoder_name


class OfficialDataset(Dataset):
    """Both views and boxes of an image by the official recipe, float32."""

    def __init__(self, source: Images, image_size: int) -> None:
        self.source, self.views = source, OfficialViews(image_size)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> tuple:
        with open(self.source.name(i), "rb") as file:
            image = Image.open(file).convert("RGB")
        return *self.views(image), i


def cpu_seconds(task: Callable[[], object], clock: Callable[[], float] = time.process_time) -> Callable[[], float]:
    """The task, made to report the CPU time of this process, or of what the clock counts."""

    def run() -> float:
        started = clock()
        task()
        return clock() - started

    return run


def with_workers() -> float:
    """CPU seconds that this process and its workers have used."""
    stats = [Path(f"/proc/{child.pid}/stat").read_text() for child in multiprocessing.active_children()]
    fields = [stat.rsplit(")", 1)[1].split() for stat in stats]
    return time.process_time() + sum(int(f[11]) + int(f[12]) for f in fields) / os.sysconf("SC_CLK_TCK")


def worker_tasks(source: Images, image_size: int, batch: int) -> dict[str, Callable[[], float]]:
    """What a worker does, in this process, on every image."""
    official = OfficialDataset(source, image_size)
    ours = Samples(source, 0, image_size, "image", (0.08, 1.0))
    keys = [[(0, i) for i in range(first, min(first + batch, len(source)))] for first in range(0, len(source), batch)]
    return {
        "official": cpu_seconds(lambda: [official[i] for i in range(len(source))]),
        "ours": cpu_seconds(lambda: [ours.__getitems__(part) for part in keys]),
        "decode alone": cpu_seconds(lambda: [decode(source.read(i)) for i in range(len(source))]),
    }


def end_to_end(batches: object) -> Callable[[], float]:
    """CPU time of this process and its worker for one epoch, every batch copied out as a transfer would."""

    def tensors(batch: object) -> list[torch.Tensor]:
        return [batch] if isinstance(batch, torch.Tensor) else [t for part in batch for t in tensors(part)]

    kept: list[torch.Tensor] = []

    def epoch() -> None:
        for batch in batches:
            arrived = tensors(batch)
            if not kept:
                kept.extend(torch.empty_like(tensor) for tensor in arrived)
            for target, tensor in zip(kept, arrived, strict=True):
                target[: len(tensor)].copy_(tensor)

    return cpu_seconds(epoch, with_workers)


def loader_tasks(source: Images, image_size: int, batch: int) -> dict[str, Callable[[], float]]:
    """Whole epochs through a loader with one worker, collation and transfer included."""
    official = DataLoader(
        OfficialDataset(source, image_size), batch, shuffle=True, drop_last=True, num_workers=1, persistent_workers=True
    )
    ours = Loader(source, batch_size=batch, image_size=image_size, workers=1, max_bad=1.0)
    for loader in (official, ours):  # start the workers before their clocks are read
        next(iter(loader))
    return {"official": end_to_end(official), "ours": end_to_end(ours)}


def device_seconds(source: Images, image_size: int, batch: int, device: torch.device, rounds: int) -> float:
    """Median seconds per image of the colours on the device: CPU time there, elapsed time on a GPU."""
    given = next(iter(Loader(source, batch_size=batch, image_size=image_size, max_bad=1.0)))
    views = [
        (v.pixels.to(device), c.to(device)) for v, c in ((given.view1, given.colour1), (given.view2, given.colour2))
    ]

    def colours() -> None:
        for pixels, colour in views:
            augment(pixels, colour)

    task = partial(elapsed, colours, device) if device.type == "cuda" else cpu_seconds(colours)
    return statistics.median(by_turns({"": task}, rounds)[""]) / batch


def rows_of(seconds: dict[str, list[float]], images: int, title: str) -> list[tuple[str, str]]:
    """Milliseconds, rate and ratios as text."""
    rows = []
    for name, spent in seconds.items():
        each = statistics.median(spent) / images
        ratio = median_ratio(seconds["official"], spent)
        rows.append((f"{title}: {name}", f"{each * 1e3:.2f} ms, {1 / each:.0f} images/s/core, {ratio:.2f}x official"))
    if "decode alone" in seconds:
        over = median_ratio(seconds["ours"], seconds["decode alone"])
        rows.append((f"{title}: ours / decode alone", f"{over:.2f}"))
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of real images")
    parser.add_argument("--images", type=int, default=192, help="images per round (default 192)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count (default 7)")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--names", type=int, default=1_281_167, help="file names of the start-up test; 0: leave it out")
    parser.add_argument(
        "--before", type=Path, help="another checkout of this project: its starts with the names beside"
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    args = parser.parse_args(argv)
    if args.quick:
        args.images, args.rounds, args.image_size, args.batch, args.names = 8, 2, 64, 4, min(args.names, 3000)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        source = open_images([args.data or photos.write(Path(folder, "photos"), args.images)])
        sizes = [len(source.read(i)) for i in range(len(source))]
        versions = f"torch {torch.__version__}, JPEG by {decoder_name()}, Pillow {PIL.__version__}"
        rows = [("machine", f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {versions}")]
        rows += [("load average at the start", f"{os.getloadavg()[0]:.1f}")]
        rows += [("files", f"{len(sizes)}, mean {statistics.mean(sizes) / 1000:.0f} kB")]
        settings = source, args.image_size, args.batch
        rows += rows_of(by_turns(worker_tasks(*settings), args.rounds), len(source), "worker")
        used = len(source) // args.batch * args.batch
        rows += rows_of(by_turns(loader_tasks(*settings), args.rounds), used, "end to end")
        rows += [("colours on the CPU", f"{device_seconds(*settings, torch.device('cpu'), args.rounds) * 1e3:.2f} ms")]
        gpu = "not run"
        if torch.cuda.is_available():
            gpu = f"{device_seconds(*settings, torch.device('cuda'), args.rounds) * 1e3:.3f} ms"
        rows += [("colours on the GPU", gpu)]
    if args.names:
        rows += names.measure(args.names, args.before)
    print(tabulate(rows, tablefmt="plain", disable_numparse=True))
    if args.json:
        args.json.write_text(json.dumps(dict(rows), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
