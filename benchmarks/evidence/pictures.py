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
import torch.nn.functional as F
from torch import Tensor

import train
from pixpro.checkpoints.checkpoint import LAST, load
from pixpro.config import Config
from pixpro.method.encoder import Encoder
from pixpro.method.numerics import batch_statistics
from pixpro.monitor.compare import read_rows
from pixpro.monitor.semantics import masked_images
from pixpro.scenes import sample_scenes

FOLDER = Path(__file__).resolve().parents[2] / "docs"
SHOWN = (3, 8, 14, 21, 30)  # scenes of the test split, chosen before any was looked at
SIZE = 256  # pixels of a side: 32 x 32 cells of stride 8


def encoder_of(run: Path, trained: bool = True) -> Encoder:
    """The encoder of a run at its end, or as it began."""
    state = load(run / LAST)
    model = train.build_model(Config(**state["config"]))
    if trained:
        model.load_state_dict(state["model"])
    return model.encoder


@torch.no_grad()
def coloured_cells(encoder: Encoder, images: Tensor, seen: Tensor) -> Tensor:
    """The cells' three main directions over all images as red, green and blue: (n, h, w, 3) in 0..1."""
    with batch_statistics(encoder):
        maps = encoder.features(images)[encoder.dense]
    cells = maps.permute(0, 2, 3, 1)
    flat = F.normalize(cells.flatten(0, 2), dim=1)
    flat = flat - flat.mean(dim=0)
    _, _, directions = torch.linalg.svd(flat, full_matrices=False)
    # a direction has no sign: point each to where the image is brighter, so that networks compare
    brightness = F.adaptive_avg_pool2d(images.mean(dim=1, keepdim=True), maps.shape[2:]).flatten()
    values = flat @ directions[:3].T
    values = values * torch.sign((values * (brightness - brightness.mean())[:, None]).sum(dim=0))
    low, high = values.quantile(0.02, dim=0), values.quantile(0.98, dim=0)
    return ((values - low) / (high - low).clamp(min=1e-6)).clamp(0, 1).view(*cells.shape[:3], 3)[: len(seen)]


def draw_features(runs: dict[str, Path], path: Path) -> None:
    """A row for each scene, a column for each network."""
    scenes = masked_images(sample_scenes(), "test", SIZE, max(SHOWN) + 1).pixels
    images = torch.cat([scenes[list(SHOWN)], scenes])  # more than are shown, for BatchNorm's and the directions' sake
    first = next(iter(runs.values()))
    encoders = {"untrained": encoder_of(first, trained=False), **{name: encoder_of(run) for name, run in runs.items()}}
    columns = {
        "scene": None,
        **{name: coloured_cells(encoder, images, images[: len(SHOWN)]) for name, encoder in encoders.items()},
    }
    figure, axes = plt.subplots(len(SHOWN), len(columns), figsize=(2.1 * len(columns), 2.1 * len(SHOWN)))
    for row in range(len(SHOWN)):
        for axis, (name, cells) in zip(axes[row], columns.items(), strict=True):
            if cells is None:
                picture = images[row].permute(1, 2, 0)
                picture = (picture - picture.min()) / (picture.max() - picture.min())
            else:
                picture = cells[row]
            axis.imshow(picture.numpy(), interpolation="nearest")
            axis.set_axis_off()
            if row == 0:
                axis.set_title(name, fontsize=10)
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=90)
    plt.close(figure)


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
    figure.savefig(path, dpi=90)
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
