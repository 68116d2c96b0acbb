"""The picture and the table of docs/what-is-normal.md: runs that learn and runs made to collapse, side by side.

    python benchmarks/monitor/normal_curves.py --small      five convolutions in place of the demo's network: minutes
    python benchmarks/monitor/normal_curves.py              ResNet-18 at 128 pixels: eleven runs of four minutes

Each run is `train.py --demo` with SETTINGS, coarser than the demo's own, and the changes named in `runs`.
Those that are finished are not repeated.
"""

import argparse
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from unittest import mock

from tabulate import tabulate
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))

import train
from benchmarks.evidence.trunk import FiveConvolutions, small_trunk
from pixpro.method import ppm
from pixpro.monitor.compare import compare, read_rows

# 4 x 4 cells of the whole trunk, 180 steps of 16 images, no instance branch
SETTINGS = [
    *("--neck", "none", "--image_size", "128", "--dim", "256", "--epochs", "9", "--warmup_epochs", "1"),
    *("--instance_weight", "0", "--momentum_base", "0.9"),
]
LR_BASE = {"pixcontrast": 16.0, "pixpro": 3.0}
PANELS = ("loss", "target_rank", "target_std", "prediction_rank", "propagation_entropy", "grad_norm")
SMALL = ["--image_size", "64", "--hidden_dim", "128", "--dim", "64"]
SMALL_TRUNK = partial(FiveConvolutions, (16, 32, 64, 64, 64), nn.MaxPool2d)
PIXPRO_SEEDS = 3
PICTURE = Path(__file__).parents[2] / "docs" / "normal.png"


def make(folder: Path, arguments: list[str], *, small: bool, propagated: bool) -> None:
    """Run one training, unless it is there."""
    if (folder / "last.pth.tar").exists():
        return
    identity = mock.patch.object(ppm.PixelPropagation, "forward", lambda self, features: features)
    with small_trunk(SMALL_TRUNK) if small else nullcontext(), nullcontext() if propagated else identity:
        code = train.main(["--demo", "--output_dir", str(folder), "--log_every", "2", *arguments])
    assert code == 0, f"{folder} ended with exit code {code}"


def table_row(name: str, folder: Path) -> list[str]:
    """The last numbers of a run, and in which epoch each kind of remark came first."""
    rows = read_rows(folder)
    last = [row for row in rows if "target_rank" in row][-1]
    first: dict[str, int] = {}
    for row in rows:
        for remark in row.get("remarks", []):
            first.setdefault(remark.split(":")[0], row["epoch"])
    said = ", ".join(f"{kind} (epoch {epoch})" for kind, epoch in first.items()) or "nothing"
    agreement = f"{last['agreement']:.2f}" if "agreement" in last else ""
    return [name, f"{last['loss']:.2f}", agreement, f"{last['target_rank']:.1f}", f"{last['target_std']:.2f}", said]


def runs(seeds: int) -> dict[str, list[str]]:
    """What each run changes in the demo, by its name: those that should learn, then those made to fail."""

    def method(name: str, *changes: str, times: int = 1) -> list[str]:
        return [*SETTINGS, "--loss", name, "--lr_base", str(times * LR_BASE[name]), *changes]

    pixpro = ("pixpro", "--momentum_base", "0.99")
    named: dict[str, list[str]] = {}
    for seed in range(seeds):
        named[f"PixContrast, seed {seed}"] = method("pixcontrast", "--seed", str(seed))
    for seed in range(min(seeds, PIXPRO_SEEDS)):
        named[f"PixPro, seed {seed}"] = method(*pixpro, "--seed", str(seed))
    named["PixContrast, learning rate x 100"] = method("pixcontrast", times=100)
    named["PixPro, learning rate x 100"] = method(*pixpro, times=100)
    named["PixPro, no propagation, momentum 0"] = method("pixpro", "--momentum_base", "0")
    return named


def main(argv: list[str] | None = None) -> None:
    """Train what is missing, draw the picture, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, default=Path("output/normal"))
    parser.add_argument("--small", action="store_true", help="a network of five convolutions, 64 pixels")
    parser.add_argument("--seeds", type=int, default=5, help="of PixContrast, and of PixPro up to three (%(default)s)")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    args = parser.parse_args(argv)
    named = runs(args.seeds)
    folders = {name: args.output_dir / name.replace(", ", "-").replace(" ", "-") for name in named}
    for name, changes in named.items():
        arguments = [*changes, *(SMALL if args.small else [])]
        make(folders[name], arguments, small=args.small, propagated="no propagation" not in name)
    shown = [name for name in named if "seed" not in name or "seed 0" in name]
    picture = compare([folders[name] for name in shown], PANELS, shown)
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(64).save(args.picture, optimize=True)
    heads = ["run", "loss", "agreement", "rank of the targets", "spread", "said"]
    rows = [table_row(name, folder) for name, folder in folders.items()]
    print(tabulate(rows, heads, "github", disable_numparse=True))


if __name__ == "__main__":
    main()
