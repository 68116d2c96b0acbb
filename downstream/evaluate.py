#!/usr/bin/env python
"""Measure what a pre-trained backbone has learnt, without fine-tuning it, beside an untrained one.

    python evaluate.py ../output/demo/last.pth.tar                           the built-in sample scenes
    python evaluate.py CHECKPOINT --masks VOC2012 --classes imagenet         your data
    python evaluate.py CHECKPOINT --compare OTHER --images photos            two checkpoints, no labels
    python evaluate.py ../output/demo_pixpro/last.pth.tar --level 3          the map of 8 pixels a cell alone

Dense matching needs images alone; image k-NN and the linear probe need class folders; dense k-NN and the dense linear
probe need masks in VOC's or Cityscapes' layout. Each score is a mean over --seeds with its standard deviation: a seed
draws the views, nine tenths of the training images, and the untrained network's weights.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from downstream.common.pictures import image_files
from downstream.common.precision import Frozen, add_option, resolved, sent
from downstream.common.program import settings
from downstream.probes.frozen_trunk import central_views, trunk_only, untrained_trunk
from downstream.probes.image_scores import ImageFeatureSet, image_scores, official_linear_score
from downstream.probes.labelled import ClassSet, MaskSet, class_folders, mask_folder
from downstream.probes.mask_scores import DenseFeatureSet, count_classes, dense_scores
from downstream.probes.score_table import Scores, as_json, as_table
from pixpro import load_backbone
from pixpro.checkpoints.convert import read_checkpoint
from pixpro.data.held_out import held_out_pairs
from pixpro.data.views import View
from pixpro.errors import UserError, one_line_errors
from pixpro.method.numerics import batch_statistics
from pixpro.monitor.matching import matching_scores
from pixpro.run.output import lasting_output
from pixpro.scenes import sample_scenes

UNTRAINED = "untrained"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="evaluate.py", description=__doc__, formatter_class=text)
    parser.add_argument("checkpoint", type=Path, help="weights of any known project")
    parser.add_argument("--compare", type=Path, help="another checkpoint to measure beside it")
    parser.add_argument("--arch", help="the checkpoint's backbone, checked; default: whatever it holds")
    parser.add_argument(
        "--level", type=int, choices=(2, 3, 4, 5), default=5, help="trunk's map that is measured, of stride 2^LEVEL (5)"
    )
    parser.add_argument("--images", type=Path, help="folder of images not trained on: dense matching")
    parser.add_argument("--classes", type=Path, help="a folder for each class (or train/ and val/ with them)")
    parser.add_argument("--masks", type=Path, help="folder in VOC's or Cityscapes' layout")
    parser.add_argument("--seeds", type=int, default=3, help="measurements of each score (%(default)s)")
    parser.add_argument("--image-size", type=int, default=224, help="side of views and images (%(default)s)")
    parser.add_argument("--dense-size", type=int, default=320, help="shorter side of images with masks (%(default)s)")
    parser.add_argument("--limit", type=int, default=200, help="images for dense matching (%(default)s)")
    parser.add_argument(
        "--official-linear", type=int, default=0, metavar="EPOCHS", help="also the published probe: 100"
    )
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda (%(default)s)"
    )
    add_option(parser)
    parser.add_argument("--output", type=Path, help="JSON file for the scores")
    return parser


def check(args: argparse.Namespace) -> None:
    """UserError for settings that make no sense."""
    for name, lowest in (("seeds", 1), ("image_size", 64), ("dense_size", 64), ("limit", 1), ("official_linear", 0)):
        value = getattr(args, name)
        if value < lowest:
            raise UserError(f"--{name.replace('_', '-')} {value}: expected {lowest} or more")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {args.device}: there is no CUDA device here; use --device cpu")
    if args.compare == args.checkpoint:
        raise UserError("--compare is the checkpoint itself; give another one")
    if args.official_linear and not args.classes:
        raise UserError("--official-linear needs class folders: add --classes DIR")
    if args.output and not args.output.parent.is_dir():
        raise UserError(f"--output {args.output}: there is no folder {args.output.parent}")


class Evaluation:
    """The data sets of one evaluation, and what is measured on them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.device = args, torch.device(args.device)
        if not (args.images or args.classes or args.masks):
            scenes = sample_scenes()
            args.images, args.masks = scenes / "held_out", scenes
        self.images = image_files(args.images)[: args.limit] if args.images else []
        self.classes: ClassSet | None = class_folders(args.classes) if args.classes else None
        self.masks: MaskSet | None = mask_folder(args.masks) if args.masks else None
        self.mask_classes = count_classes(self.masks.train + self.masks.test) if self.masks else 0

    def pairs(self, seed: int) -> tuple[View, View]:
        """The views of one seed; not kept, as they take a megabyte an image."""
        return held_out_pairs(self.images, self.args.image_size, seed=seed)

    def calibration(self) -> list[Path]:
        """Images to calibrate untrained networks with."""
        labelled = self.classes or self.masks
        return [image for image, _ in labelled.train[:128]] if labelled else self.images[:128]

    def measure(self, trunk: nn.Module, seeds: list[int]) -> Iterator[tuple[str, float]]:
        """(task, score) for each task and seed."""
        args, trunk = self.args, Frozen(trunk, self.args.amp, self.device)
        for seed in seeds:
            if self.images:
                with batch_statistics(trunk):
                    score = matching_scores(lambda x: {"trunk": trunk(sent(x, self.device))}, self.pairs(seed))["trunk"]
                yield "dense matching", score.accuracy
        if self.classes:
            features = ImageFeatureSet(trunk, self.classes, args.image_size, self.device)
            for seed in seeds:
                yield from image_scores(features, seed).items()
                if args.official_linear:
                    options = {"size": args.image_size, "epochs": args.official_linear, "seed": seed}
                    score = official_linear_score(trunk, self.classes, device=self.device, **options)
                    yield "image linear, official", score
        if self.masks:
            sets = [
                DenseFeatureSet(trunk, p, args.dense_size, self.device) for p in (self.masks.train, self.masks.test)
            ]
            for seed in seeds:
                yield from dense_scores(*sets, self.mask_classes, seed=seed).items()

    def chance(self) -> float | None:
        """Dense matching accuracy of a neighbour picked at random, mean over the seeds."""
        if not self.images:
            return None
        stride = 2**self.args.level
        scores = [
            matching_scores(lambda x: {"": x[:, :, ::stride, ::stride]}, self.pairs(seed))[""].chance
            for seed in range(self.args.seeds)
        ]
        return sum(scores) / len(scores)


def evaluate(args: argparse.Namespace) -> tuple[Scores, dict]:
    """Scores of all networks, and what else belongs into the record."""
    check(args)
    args.amp, warning = resolved(args.amp, torch.device(args.device))
    sys.stderr.write(warning)
    paths = [args.checkpoint, *([args.compare] if args.compare else [])]
    names = [path.name for path in paths]
    names = names if len(set(names)) == len(names) else [str(path) for path in paths]
    archs = [args.arch, None]
    trunks = {n: trunk_only(load_backbone(p, a), args.level) for n, p, a in zip(names, paths, archs, strict=False)}
    arch = read_checkpoint(args.checkpoint).arch
    evaluation = Evaluation(args)
    scores: Scores = {}
    seeds = list(range(args.seeds))
    for name, trunk in trunks.items():
        print(f"measuring {name}", file=sys.stderr, flush=True)
        for task, score in evaluation.measure(trunk, seeds):
            scores.setdefault(task, {}).setdefault(name, []).append(score)
    print(f"measuring {args.seeds} untrained {arch}", file=sys.stderr, flush=True)
    for seed in seeds:
        trunk = untrained_trunk(arch, seed, args.level).to(evaluation.device)
        # without statistics it does not normalise at all, and comparing with it would measure that, not the weights
        update_bn(central_views(evaluation.calibration(), args.image_size), trunk, evaluation.device)
        for task, score in evaluation.measure(trunk, [seed]):
            scores[task].setdefault(UNTRAINED, []).append(score)
    return scores, {"arch": arch, "matching_chance": evaluation.chance()}


@lasting_output()
@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Measure, print and write; returns the exit code."""
    args = build_parser().parse_args(argv)
    scores, facts = evaluate(args)
    print(as_table(scores))
    if facts["matching_chance"] is not None:
        print(f"dense matching by chance: {100 * facts['matching_chance']:.1f}")
    if args.output:
        record = {"settings": settings(args), **facts, "torch": torch.__version__, "scores": as_json(scores)}
        args.output.write_text(json.dumps(record, indent=2) + "\n")
        print(f"wrote {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
