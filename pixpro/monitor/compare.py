"""`python -m pixpro compare RUN...`: the metrics of several runs as curves in one picture."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pixpro.errors import UserError, one_line_errors
from pixpro.visualize.figure import Panel, Points, draw_chart

# name in metrics.jsonl -> title of its panel
TITLES = {
    "loss": "loss",
    "agreement": "agreement (-loss / 4)",
    "target_rank": "effective rank of the targets",
    "prediction_rank": "effective rank of the predictions",
    "target_std": "spread of the targets (0: collapsed, 1: even)",
    "prediction_std": "spread of the predictions",
    "within_image_rank": "effective rank of the targets within images (1: cells of an image alike)",
    "within_image_std": "spread of the targets within images",
    "propagation_entropy": "entropy of the propagation weights (1: even)",
    "positives": "positive pairs per image",
    "without_overlap": "share of crop pairs without overlap",
    "grad_norm": "norm of the gradient",
    "trust_median": "LARS trust ratio, median",
    "trust_min": "LARS trust ratio, smallest",
    "update_size": "change of a layer per step",
    "lr": "learning rate",
    "momentum": "coefficient of the momentum encoder",
    "images_per_second": "images per second",
    "data_wait": "share of time waiting for data",
    "memory_gb": "peak memory in GB",
    "matching": "dense matching accuracy",
    "cells_named": "cells named by a linear classifier",
}
DEFAULT = ("loss", "target_rank", "target_std", "grad_norm", "lr", "matching")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a run: its folder, or its metrics.jsonl. UserError when there are none."""
    file = path / "metrics.jsonl" if path.is_dir() else path
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); give the output folder of a run") from None
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # a run that is being written, or was killed, may end in half a line
            continue
        if isinstance(row, dict) and type(row.get("step")) is int:
            rows.append(row)
    if not rows:
        raise UserError(f"{file}: holds no rows of metrics; give the output folder of a run")
    return rows


def curve(rows: Sequence[dict[str, Any]], name: str) -> Points:
    """(step, value) of one number where it is one."""
    return [(row["step"], row[name]) for row in rows if type(row.get(name)) in (int, float)]


def run_names(paths: Sequence[Path]) -> list[str]:
    """What tells the runs apart: their paths without the folders that they share."""
    whole = [path.resolve().parent if path.name == "metrics.jsonl" else path.resolve() for path in paths]
    if len(set(whole)) == 1:
        return [folder.name for folder in whole]
    shared = os.path.commonpath([folder.parent for folder in whole])
    return [os.path.relpath(folder, shared) for folder in whole]


def compare(paths: Sequence[Path], metrics: Sequence[str], labels: Sequence[str] | None = None) -> Image.Image:
    """The picture: a panel for each metric, a curve in it for each run."""
    runs = [read_rows(path) for path in paths]
    panels = [Panel(TITLES.get(name, name), [curve(rows, name) for rows in runs]) for name in metrics]
    return draw_chart(panels, labels or run_names(paths))


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Exit code of the command: 2 for wrong input."""
    parser = argparse.ArgumentParser(prog="python -m pixpro compare", description="Curves of several runs as a PNG.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output folder of a run, or a metrics.jsonl")
    parser.add_argument("--out", type=Path, default=Path("curves.png"), help="picture to write (%(default)s)")
    parser.add_argument("--labels", nargs="+", metavar="TEXT", help="names for the legend (default: from the paths)")
    parser.add_argument(
        "--metrics", nargs="+", choices=TITLES, default=DEFAULT, metavar="NAME", help=f"of {', '.join(TITLES)}"
    )
    args = parser.parse_args(argv)
    if args.labels and len(args.labels) != len(args.runs):
        raise UserError(f"--labels: {len(args.labels)} given for {len(args.runs)} runs; give one for each")
    picture = compare(args.runs, args.metrics, args.labels)
    try:
        # Few colours: a palette makes the file a third of the size.
        picture.quantize(128).save(args.out, format="PNG", optimize=True)
    except OSError as error:
        raise UserError(f"{args.out}: cannot be written ({error.strerror or error}); give --out") from None
    print(f"wrote {args.out}")
    return 0
