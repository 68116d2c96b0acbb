"""The pictures of the README and of docs/evidence.md, from finished runs: output folders of train.py.

    python benchmarks/evidence/pictures.py --run PixPro=output/demo_pixpro --run PixContrast=output/demo_pixcontrast
    python benchmarks/evidence/pictures.py --readme output/demo_pixcontrast

--run: cells in colour before and after training, and how the rank of the targets went; the untrained network is the one
that the first run began with. --readme: pairs.png, two views of a held-out image and their matched cells, and
features.png, a few held-out images and their cells in colour, before training and after it.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from PIL import Image

from pixpro.checkpoints.checkpoint import LAST
from pixpro.errors import one_line_errors
from pixpro.monitor.compare import read_rows
from pixpro.monitor.report import SAMPLE, read_settings, sample
from pixpro.monitor.semantics import masked_images
from pixpro.scenes import sample_scenes
from pixpro.visualize.ends import both_ends, coloured
from pixpro.visualize.feature_panels import colours_panel, component_colours
from pixpro.visualize.pair import busiest_cell, displayable, pair_of
from pixpro.visualize.pair_panels import pair_panels
from pixpro.visualize.sheet import sheet

FOLDER = Path(__file__).resolve().parents[2] / "docs"
SHOWN = (3, 8, 14, 21, 30)  # scenes of the test split, chosen before any was looked at
SIZE = 256  # pixels of a side: 32 x 32 cells of stride 8
DPI, README_DPI = 90, 150  # the latter makes 1200 pixels: sharp at the 800 of a README


def draw_features(runs: dict[str, Path], path: Path) -> None:
    """A row for each scene, a column for each network, whose colours are the three main directions of its cells."""
    # more than are shown, for BatchNorm's and the directions' sake
    pixels = masked_images(sample_scenes(), "test", SIZE, max(SHOWN) + 1).pixels
    scenes = [displayable(each) for each in pixels]
    images = [torch.from_numpy(scene).permute(2, 0, 1) for scene in scenes]
    ends = [both_ends(read_settings(run), run / LAST, images) for run in runs.values()]
    networks = {"untrained": ends[0]["before training"]}
    networks |= {name: both["after training"] for name, both in zip(runs, ends, strict=True)}
    columns = {"scene": scenes}
    for name, network in networks.items():
        columns[name] = component_colours([network.stages(each[None])["trunk"] for each in pixels])
    rows = [
        [colours_panel(name if row == 0 else "", pictures[number], 1.0) for name, pictures in columns.items()]
        for row, number in enumerate(SHOWN)
    ]
    sheet(rows, width=2.1 * len(columns), dpi=DPI).save(path)


def draw_curves(runs: dict[str, Path], path: Path) -> None:
    """Rank of the targets, and the loss over its value at the first report, by step."""
    figure, (ranks, losses) = plt.subplots(1, 2, figsize=(9, 3))
    for name, run in runs.items():
        rows = [row for row in read_rows(run) if "target_rank" in row]
        steps = [row["step"] for row in rows]
        ranks.plot(steps, [row["target_rank"] for row in rows], label=name)
        losses.plot(steps, [row["loss"] - rows[0]["loss"] for row in rows], label=name)
    ranks.set_yscale("log")
    ranks.set_title("effective rank of the targets", fontsize=10)
    losses.set_title("loss, less that of the first report", fontsize=10)
    for axis in (ranks, losses):
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    ranks.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def draw_readme(run: Path, roots: list[str], pair: int, shown: list[int]) -> dict[str, Image.Image]:
    """Both pictures by name; pair, shown: which of the run's held-out images, counted from 0, are on them."""
    settings = read_settings(run)
    images = sample(roots or settings["val_data"] or settings["data"])
    networks = both_ends(settings, run / "last.pth.tar", images)
    views = (pair_of(images[pair], f"{pair}", seed=seed) for seed in range(100))
    two_views = next(pair for pair in views if 0.4 < pair.positives.any(1).mean() < 0.8)
    chosen = [images[number].permute(1, 2, 0).numpy() for number in shown]
    rows = {"Images": chosen}
    for name, network in networks.items():
        rows[f"Dense features {name}"] = coloured(settings, network, chosen)
    aspects = [image.shape[1] / image.shape[0] for image in chosen]
    panels = [
        [colours_panel(title if n == 0 else "", row[n], aspect) for n, aspect in enumerate(aspects)]
        for title, row in rows.items()
    ]
    return {
        "pairs": sheet([pair_panels(two_views, busiest_cell(two_views.positives))], dpi=README_DPI),
        "features": sheet(panels, tallest=2.2, dpi=README_DPI),
    }


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Draw what is asked for; returns the exit code, 2 for wrong input."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--run", action="append", default=[], metavar="NAME=FOLDER", help="for docs/evidence.md")
    parser.add_argument("--readme", type=Path, metavar="FOLDER", help="for the README")
    parser.add_argument(
        "--images", nargs="+", default=[], metavar="PATH", help="of the README (default: the run's own)"
    )
    parser.add_argument("--pair", type=int, default=0, choices=range(SAMPLE), metavar="N", help="image of pairs.png")
    parser.add_argument(
        "--shown", type=int, nargs="+", default=[0, 1, 2], choices=range(SAMPLE), metavar="N", help="of features.png"
    )
    parser.add_argument("--output-dir", type=Path, default=FOLDER, help="folder to write to (%(default)s)")
    args = parser.parse_args(argv)
    if not args.run and not args.readme:
        parser.error("give --run or --readme")
    runs = {name: Path(folder) for name, _, folder in (given.partition("=") for given in args.run)}
    if runs:
        draw_features(runs, args.output_dir / "evidence-features.png")
        draw_curves(runs, args.output_dir / "evidence-curves.png")
    if args.readme:
        for name, picture in draw_readme(args.readme, args.images, args.pair, args.shown).items():
            picture.save(args.output_dir / f"{name}.png", optimize=True)
            print(f"wrote {args.output_dir / f'{name}.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
