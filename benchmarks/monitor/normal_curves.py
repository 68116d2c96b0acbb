"""The picture and the table of docs/what-is-normal.md: runs that learn and runs made to collapse, side by side.

    python benchmarks/monitor/normal_curves.py --small      five convolutions in place of the demo's network: minutes
    python benchmarks/monitor/normal_curves.py              ResNet-18 at 128 pixels: eleven runs of four minutes

Each run is `train.py --demo` with SETTINGS, coarser than the demo's own, and the changes named in `runs`.
Those that are finished are not repeated.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import torchvision
from tabulate import tabulate
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))

import train
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
PIXPRO_SEEDS = 3
PICTURE = Path(__file__).parents[2] / "docs" / "normal.png"


class FiveConvolutions(nn.Module):
    """What an encoder takes from a ResNet, at stride 16."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.relu, self.maxpool = nn.ReLU(), nn.MaxPool2d(2)
        stages = [(16, 32, 2), (32, 64, 2), (64, 64, 1), (64, 64, 1)]
        for number, (inputs, outputs, stride) in enumerate(stages, start=1):
            conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.add_module(f"layer{number}", nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU()))
        self.fc = nn.Linear(64, 1)


@contextlib.contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """A region in which an attribute has another value."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def make(folder: Path, arguments: list[str], *, small: bool, propagated: bool) -> None:
    """Run one training, unless it is there."""
    if (folder / "last.pth.tar").exists():
        return
    with contextlib.ExitStack() as stack:
        if small:
            stack.enter_context(replaced(torchvision.models, "get_model", lambda *args, **kw: FiveConvolutions()))
        if not propagated:
            stack.enter_context(replaced(ppm.PixelPropagation, "forward", lambda self, features: features))
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
