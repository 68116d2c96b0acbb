"""The pictures of docs/evidence.md: cells in colour before and after training, and how the rank of the targets went.

    python benchmarks/evidence/pictures.py --run PixPro=output/demo_pixpro --run PixContrast=output/demo_pixcontrast

Each run is an output folder of train.py; the untrained network is the one that the first run began with.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from pixpro.checkpoints.checkpoint import LAST
from pixpro.monitor.compare import read_rows
from pixpro.monitor.report import read_settings
from pixpro.monitor.semantics import masked_images
from pixpro.scenes import sample_scenes
from pixpro.visualize.ends import both_ends
from pixpro.visualize.feature_panels import colours_panel, component_colours
from pixpro.visualize.pair import displayable
from pixpro.visualize.sheet import sheet

FOLDER = Path(__file__).resolve().parents[2] / "docs"
SHOWN = (3, 8, 14, 21, 30)  # scenes of the test split, chosen before any was looked at
SIZE = 256  # pixels of a side: 32 x 32 cells of stride 8
DPI = 90


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


def main(argv: list[str] | None = None) -> None:
    """Draw both."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--run", action="append", required=True, metavar="NAME=FOLDER", help="output folder of a run")
    parser.add_argument("--output-dir", type=Path, default=FOLDER)
    args = parser.parse_args(argv)
    runs = {name: Path(folder) for name, _, folder in (given.partition("=") for given in args.run)}
    draw_features(runs, args.output_dir / "evidence-features.png")
    draw_curves(runs, args.output_dir / "evidence-curves.png")


if __name__ == "__main__":
    main()
