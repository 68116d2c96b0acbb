"""The pictures at the top of the README, docs/pairs.png and docs/features.png, from a finished run.

    python benchmarks/monitor/pictures.py output/demo_pixcontrast

pairs.png: two views of a held-out image and their matched cells. features.png: a few held-out images and the first
three principal components of their cells as colours, before training, made again from the run's seed, and after it.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from PIL import Image

from pixpro.errors import UserError
from pixpro.monitor.report import SAMPLE, read_settings, sample
from pixpro.visualize.ends import both_ends, coloured
from pixpro.visualize.feature_panels import colours_panel
from pixpro.visualize.pair import busiest_cell, pair_of
from pixpro.visualize.pair_panels import pair_panels
from pixpro.visualize.sheet import sheet

DPI = 150  # 1200 pixels: sharp at the 800 of a README
DOCS = Path(__file__).resolve().parents[2] / "docs"


def draw(run: Path, roots: list[str], pair: int, shown: list[int]) -> dict[str, Image.Image]:
    """Both pictures by name; pair, shown: which of the run's held-out images, counted from 0, are on them."""
    settings = read_settings(run)
    images = sample(roots or settings["val_data"] or settings["data"])
    networks = both_ends(settings, run / "last.pth.tar", images)
    views = (pair_of(images[pair], f"{pair}", seed=seed) for seed in range(100))
    two_views = next(pair for pair in views if 0.4 < pair.positives.any(1).mean() < 0.8)
    pictures = {"pairs": sheet([pair_panels(two_views, busiest_cell(two_views.positives))], dpi=DPI)}
    chosen = [images[number].permute(1, 2, 0).numpy() for number in shown]
    rows = {"Images": chosen}
    for name, network in networks.items():
        rows[f"Dense features {name}"] = coloured(settings, network, chosen)
    aspects = [image.shape[1] / image.shape[0] for image in chosen]
    panels = [[colours_panel("", row[n], aspect) for n, aspect in enumerate(aspects)] for row in rows.values()]
    titled = [[row[0]._replace(title=title), *row[1:]] for title, row in zip(rows, panels, strict=True)]
    return pictures | {"features": sheet(titled, tallest=2.2, dpi=DPI)}


def main(argv: list[str] | None = None) -> int:
    """Write the pictures; returns the exit code, 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="output folder of a finished run")
    parser.add_argument("--images", nargs="+", default=[], metavar="PATH", help="folders (default: the run's own)")
    parser.add_argument("--pair", type=int, default=0, choices=range(SAMPLE), metavar="N", help="image of pairs.png")
    parser.add_argument(
        "--shown", type=int, nargs="+", default=[0, 1, 2], choices=range(SAMPLE), metavar="N", help="of features.png"
    )
    parser.add_argument("--out", type=Path, default=DOCS, help="folder to write to (%(default)s)")
    args = parser.parse_args(argv)
    try:
        for name, picture in draw(args.run, args.images, args.pair, args.shown).items():
            picture.save(args.out / f"{name}.png", optimize=True)
            print(f"wrote {args.out / f'{name}.png'}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
