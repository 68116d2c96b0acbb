"""train.py end to end, data included: images/s, share of the time waiting for data, memory; from 1 rank to several.

    python benchmarks/train.py                          drawn photographs; ranks 1 and 2 (CPU) or 1, 2, 4, 8 (GPUs)
    python benchmarks/train.py --data DIR               a folder of real images, on the disk they will be read from
    python benchmarks/train.py --data scenes            the built-in scenes
    python benchmarks/train.py --json FILE              also as a file, which benchmarks/hours.py takes

Every rank has the same number of images and of cores (weak scaling): with 2 cores, 1 rank on one and 2 ranks on both.
On a CPU also 1 rank with all the cores and all the images: what is lost to it, synchronisation and separate processes
cost. The layouts take turns, --repeats times. Speeds are medians over the steps of a run after its warm-up, then over
the runs; in brackets the lowest and the highest run. A step's time ends before its numbers are printed and saved. Below
four cores per rank it decodes its images itself (pixpro/data/cores.py): that counts as waiting for data.
"""

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.measuring.timing import machine
from benchmarks.pipeline import photos
from benchmarks.scaling.layouts import Figures, Layout, figures, layouts, link_images, rows_of, same_work, table, train
from pixpro.data.cores import available_cores
from pixpro.errors import one_line_errors
from pixpro.scenes import sample_scenes

PHOTOS = 64  # different ones; a run reads each of them several times, always in another crop


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line; exits with one line where it makes no sense."""
    gpus = torch.cuda.device_count()
    ranks = [number for number in (1, 2, 4, 8) if number <= gpus] if gpus else [1, min(2, available_cores())]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="photos", help="photos (drawn), scenes (built in) or a folder of images")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_per_rank", type=int, default=128 if gpus else 4, help="images of a step on each rank")
    parser.add_argument("--steps", type=int, default=200 if gpus else 5, help="steps of a run that count")
    parser.add_argument("--warmup", type=int, default=40 if gpus else 1, help="steps before them")
    parser.add_argument("--log_every", type=int, default=20 if gpus else 1, help="steps to a measured mean")
    parser.add_argument("--ranks", type=int, nargs="+", default=ranks)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each layout")
    parser.add_argument("--extra", default="", help='more settings of train.py: --extra="--compile"')
    parser.add_argument("--json", type=Path, help="also write the figures there")
    args = parser.parse_args(argv)
    for name in ("batch_per_rank", "steps", "log_every", "repeats"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} is {getattr(args, name)}; expected 1 or more")
    if min(args.ranks) < 1 or gpus and max(args.ranks) > gpus:
        parser.error(f"--ranks {args.ranks}: expected numbers from 1" + (f" to {gpus}, the GPUs" if gpus else ""))
    if args.warmup < 0 or args.warmup % args.log_every or args.steps % args.log_every:
        parser.error(f"--warmup {args.warmup} and --steps {args.steps} are not multiples of --log_every")
    return args


def measure(args: argparse.Namespace, folder: Path, chosen: list[Layout]) -> dict[Layout, list[Figures]]:
    """The runs of each layout, taken by turns."""
    source = folder / "photos"
    if args.data == "photos":
        photos.write(source, PHOTOS)
    else:
        source = sample_scenes() / "train" if args.data == "scenes" else Path(args.data)
    options = ["--arch", args.arch, "--image_size", str(args.image_size), "--log_every", str(args.log_every)]
    options += ["--eval_every", "0", *shlex.split(args.extra)]
    steps = args.warmup + args.steps
    runs: dict[Layout, list[Figures]] = {layout: [] for layout in chosen}
    for turn in range(args.repeats):
        for number, layout in enumerate(chosen):
            images = folder / f"images{number}"
            if turn == 0:
                link_images(source, images, layout.ranks * layout.batch * steps)
            with tempfile.TemporaryDirectory(dir=folder) as output:
                found = figures(train(layout, images, Path(output, "run"), options), args.warmup)
            runs[layout].append(found)
            where = f"{layout.ranks} rank(s) on {layout.cores} core(s)"
            print(f"turn {turn + 1}, {where}: {found.images_per_second:.3g} images/s", file=sys.stderr)
    return runs


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    args, about = parse(argv), machine()
    about |= {"arch": args.arch, "image_size": args.image_size, "extra": args.extra, "data": args.data}
    chosen = layouts(args.ranks, about["cores"], args.batch_per_rank, on_cpu=about["device"] == "CPU")
    with tempfile.TemporaryDirectory(prefix="pixpro-bench-") as folder:
        runs = measure(args, Path(folder), chosen)
    rows = rows_of(runs)
    settings = f"{args.repeats} runs of {args.steps} steps after {args.warmup}, a value for {args.log_every} step(s)"
    print(", ".join(f"{name} {value}" for name, value in about.items() if value != ""), settings, "", sep="\n")
    print("\n".join([*table(rows), *same_work(runs)]))
    if args.json:
        args.json.write_text(json.dumps({"about": about, "settings": settings, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
