"""Draw both crops of images, their cells and which of them match; with a checkpoint, also what it makes of them.

python -m pixpro visualize photo.jpg
python -m pixpro visualize photos/*.jpg --checkpoint output/demo/last.pth.tar --html
"""

import argparse
import re
from pathlib import Path

from PIL import Image

from pixpro.errors import UserError, one_line_errors
from pixpro.method.geometry import cells_along
from pixpro.visualize.dense_features import DenseFeatures, load_dense_features
from pixpro.visualize.feature_panels import component_panels, similarity_panels
from pixpro.visualize.page import Picture, Section, page
from pixpro.visualize.pair import Pair, busiest_cell, make_pair
from pixpro.visualize.pair_panels import pair_panels, pair_summary
from pixpro.visualize.sheet import sheet

ABOUT = (
    "Each image was cropped, flipped and coloured twice as in training. Cells of the two feature maps that show the "
    "same place of the image are positive pairs; the loss pulls their features together."
)


def pair_sheet(pair: Pair, heading: str, network: DenseFeatures | None, cell: int) -> Image.Image:
    """The whole picture of a pair; cell: which one of view 1 to explain."""
    rows = [pair_panels(pair, cell)]
    if network is not None:
        rows += [similarity_panels(pair, network, cell), component_panels(pair, network)]
    return sheet(rows, heading, pair_summary(pair, cell))


def parse_cell(text: str) -> tuple[int, int]:
    """ROW,COLUMN counted from 1."""
    match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not ROW,COLUMN such as 4,2")
    return int(match[1]), int(match[2])


def draw_pairs(args: argparse.Namespace) -> list[Path]:
    """The files written: a PNG for each image, and the page if it was asked for."""
    if args.image_size < 64 or args.image_size > 1024:
        raise UserError(f"--image_size {args.image_size}: give a side of 64 to 1024 pixels, 32 for each cell")
    network = load_dense_features(args.checkpoint) if args.checkpoint else None
    cells, cell = network.cells(args.image_size) if network else cells_along(args.image_size), None
    if args.cell is not None:
        row, column = args.cell
        if not (1 <= row <= cells and 1 <= column <= cells):
            raise UserError(f"--cell {row},{column} is not among the {cells} x {cells} cells, counted from 1,1")
        cell = (row - 1) * cells + column - 1
    options = {"image_size": args.image_size, "cells": cells, "seed": args.seed}
    options |= {"distance": args.distance, "threshold": args.threshold}
    pairs = [make_pair(path, **options) for path in args.images]  # all before the first file is written
    sections, written = [], []
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        for number, (path, pair) in enumerate(zip(args.images, pairs, strict=True), start=1):
            heading = path.name if network is None else f"{path.name}: {network.label}"
            shown = busiest_cell(pair.positives) if cell is None else cell
            image = pair_sheet(pair, heading, network, shown)
            safe = re.sub(r"[^\w.-]", "_", path.stem, flags=re.ASCII)[:60]
            written.append(args.out / f"{number:02d}-{safe}.png")
            image.save(written[-1])
            sections.append(Section(str(path), pictures=[[Picture(image, pair_summary(pair, shown))]]))
        if args.html:
            written.append(args.out / "pairs.html")
            title = "Pairs of views" if network is None else f"Pairs of views: {network.label}"
            text = page(title, ABOUT, sections, "python -m pixpro visualize")
            written[-1].write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {args.out}: {error.strerror}; choose another folder with --out") from error
    return written


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Exit status of the command."""
    parser = argparse.ArgumentParser(prog="python -m pixpro visualize", description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", metavar="IMAGE", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="weights of any known project: draw their features too")
    parser.add_argument("--out", type=Path, default=Path("output/pairs"), help="folder to write to (%(default)s)")
    parser.add_argument("--html", action="store_true", help="also write pairs.html, one page that holds everything")
    parser.add_argument("--seed", type=int, default=0, help="which crops are drawn (%(default)s)")
    parser.add_argument("--image_size", "--image-size", type=int, default=224, help="side of the crops (%(default)s)")
    parser.add_argument("--threshold", type=float, default=0.7, help="matching distance in bin diagonals (%(default)s)")
    parser.add_argument("--distance", choices=("image", "pixel"), default="image", help="as in train.py (%(default)s)")
    parser.add_argument("--cell", type=parse_cell, metavar="ROW,COLUMN", help="cell of view 1 to explain, from 1,1")
    args = parser.parse_args(argv)
    for path in draw_pairs(args):
        print(f"wrote {path}")
    return 0
