"""Scores without labels or fine-tuning of several trainings of each method, beside untrained networks, as a table.

    python benchmarks/monitor/scores.py --runs "PixPro=output/pixpro_*" --runs "PixContrast=output/pixcontrast_*"

Each run is an output folder of train.py, with last.pth.tar; the spread is over the runs of a method, and over the
weights of as many untrained networks. What is measured, and on which images, is what `downstream/evaluate.py` does by
itself: the built-in scenes.
"""

import argparse
import glob
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from tabulate import tabulate
from torch.optim.swa_utils import update_bn

from downstream import evaluate
from downstream.probes.frozen_trunk import central_views, trunk_only, untrained_trunk
from downstream.probes.score_table import Scores, as_json, cell
from pixpro import load_backbone
from pixpro.checkpoints.convert import read_checkpoint

UNTRAINED = "untrained"


def measure(runs: dict[str, list[Path]]) -> Scores:
    """task -> method -> one value for each of its checkpoints, all with the same views and the same division."""
    checkpoints = [path for paths in runs.values() for path in paths]
    evaluation = evaluate.Evaluation(evaluate.build_parser().parse_args([str(checkpoints[0])]))
    scores: Scores = {}

    def note(name: str, trunk: torch.nn.Module) -> None:
        for task, score in evaluation.measure(trunk, [0]):
            scores.setdefault(task, {}).setdefault(name, []).append(score)

    for name, paths in runs.items():
        for path in paths:
            note(name, trunk_only(load_backbone(path)))
    arch = read_checkpoint(checkpoints[0]).arch
    for seed in range(max(map(len, runs.values()))):
        trunk = untrained_trunk(arch, seed)
        update_bn(central_views(evaluation.calibration(), evaluation.args.image_size), trunk)
        note(UNTRAINED, trunk)
    return scores


def table(scores: Scores) -> str:
    """A row for each method, a column for each task, in per cent, as Markdown."""
    rows = [
        [f"{name} ({len(values)})", *(cell(row[name]) for row in scores.values())]
        for name, values in next(iter(scores.values())).items()
    ]
    return tabulate(rows, ["", *scores], "github", disable_numparse=True)


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", action="append", required=True, metavar="NAME=GLOB", help="a method's output folders")
    parser.add_argument("--json", type=Path, help="file for all values")
    args = parser.parse_args(argv)
    runs = {}
    for given in args.runs:
        name, _, pattern = given.partition("=")
        runs[name] = sorted(Path(folder, "last.pth.tar") for folder in glob.glob(pattern))
        if not runs[name]:
            parser.error(f"--runs {given}: no folder has such a name")
    scores = measure(runs)
    print(table(scores))
    if args.json:
        args.json.write_text(json.dumps(as_json(scores), indent=1) + "\n")


if __name__ == "__main__":
    main()
