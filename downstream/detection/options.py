"""detect.py's command line -> checked settings: recipe, data set, model."""

import argparse
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from downstream.common.arguments import natural, positive, share
from downstream.common.finished import Finished, load_finished
from downstream.common.options import build_parser, read
from downstream.common.program import check_output, load_trunk, random_trunk, trunk_arch
from downstream.detection.annotated import DetectionSet, check_set
from downstream.detection.coco import load_coco
from downstream.detection.coco_json import require_pycocotools
from downstream.detection.detector import Detector, FPNDetector, TwoStages
from downstream.detection.own_data import PUBLISHED, Part, default_splits
from downstream.detection.recipes import RECIPES, Recipe, scaled
from downstream.detection.voc import load_voc
from pixpro.checkpoints.convert import read_checkpoint
from pixpro.errors import UserError

SIZES = ("test_size", "max_size", "test_proposals")  # of the test: those of the run, when a run is tested again


def parse(manual: str, argv: list[str] | None) -> argparse.Namespace:
    """The command line's settings, defaults filled in."""
    parser = build_parser("detect.py", manual, tuple(PUBLISHED))
    parser.add_argument("--detector", choices=("c4", "fpn"), default="c4", help="c4: ResNets; fpn: any backbone")
    parser.add_argument("--no-masks", action="store_true", help="--detector fpn on COCO's layout: boxes alone")
    parser.add_argument("--train-split", help="SPLIT or FOLDER/SPLIT, `+` joins several; COCO: SPLIT or FILE.json")
    parser.add_argument("--test-split", help="likewise; default: the published splits, or what the folder has")
    parser.add_argument("--fraction", type=share, help="part of the training images, like 0.01 or 0.1")
    parser.add_argument("--fraction-seed", type=natural, default=0, help="which part (%(default)s)")
    parser.add_argument("--train-sizes", type=positive, nargs="+", help="short sides to choose from; default: recipe's")
    parser.add_argument("--test-size", type=positive, help="short side in the test; default 800")
    parser.add_argument("--max-size", type=positive, help="longest side; default 1333")
    parser.add_argument("--regions", type=positive, help="regions per training image; default 512")
    parser.add_argument("--test-proposals", type=positive, help="proposals per test image; default 1000")
    parser.add_argument("--precise-bn", type=positive, help="batches for the last BatchNorm statistics; default 200")
    return read(parser, argv, "detect")


def with_masks(args: argparse.Namespace) -> bool:
    """Whether masks are trained: by the FPN detector, on COCO's layout, unless they are not wanted."""
    return args.detector == "fpn" and args.layout == "coco" and not args.no_masks


def length(args: argparse.Namespace) -> float:
    """How many published schedules long the run is, where --iterations does not say it."""
    return args.scale * (Part(args.fraction).length if args.fraction else 1)


def recipe(args: argparse.Namespace) -> Recipe:
    """The layout's recipe, scaled, with what the command line changes."""
    used = scaled(
        RECIPES[args.layout], batch=args.batch_size, scale=length(args), iterations=args.iterations, lr=args.lr
    )
    names = ("test_size", "max_size", "regions", "test_proposals", "precise_bn")
    changes = {name: getattr(args, name) for name in names if getattr(args, name)}
    if args.train_sizes:
        changes["train_sizes"] = tuple(args.train_sizes)
    return replace(used, **changes)


def published(args: argparse.Namespace) -> bool:
    """Whether the run is one whose score may stand beside the published ones."""
    own = args.iterations or args.lr or args.classes or args.fraction or args.scale != 1
    return (args.train_split, args.test_split) == PUBLISHED[args.layout] and not own


def check(args: argparse.Namespace) -> list[str]:
    """What there is to say about the data; UserError for whatever is wrong, before anything is written.

    Fills in what follows from the data and the weights: the splits, the backbone, the class names.
    """
    if not args.data.is_dir():
        raise UserError(f"no folder {args.data}; --data expects a data set in {args.layout.upper()}'s layout")
    if args.layout == "coco":
        require_pycocotools()
    if not args.resume:
        check_output(args)  # before the data is read
    if args.eval_only:
        finished = load_finished(Path(args.weights), args.program)
        args.backbone, args.classes = finished.arch, finished.class_names
        args.detector, args.no_masks = kind_of(finished)
        for name in SIZES:
            setattr(args, name, getattr(args, name) or finished.number(name))
    splits = default_splits(args.data, args.layout, args.train_split, args.test_split)
    args.train_split, args.test_split, notes = splits
    data = detection_set(args)
    args.class_names = data.class_names
    if not args.eval_only:
        build_model(args)
        args.backbone = trunk_arch(args.weights, args.arch)
    check_output(args)
    return [*notes, *check_set(data)]


def build_model(args: argparse.Namespace) -> TwoStages:
    """The detector on the pre-trained trunk, with the pre-trained pyramid if there is one; or the trained one."""
    used = recipe(args)
    counts = dict(regions_per_image=used.regions, test_proposals=used.test_proposals)
    if args.eval_only:
        return finished_model(load_finished(Path(args.weights), args.program), **counts)
    trunk, classes = load_trunk(args.weights, args.arch), len(args.class_names)
    if args.detector == "c4":
        return Detector(trunk, classes, **counts)
    model = FPNDetector(trunk, classes, masks=with_masks(args), **counts)
    if args.weights != "none":
        model.take_neck(read_checkpoint(args.weights, args.arch).state_dict)
    return model


def kind_of(finished: Finished) -> tuple[str, bool]:
    """The detector of a finished run, and whether it goes without masks."""
    said = finished.settings
    return str(said.get("detector", "c4")), said.get("layout") != "coco" or bool(said.get("no_masks"))


def finished_model(finished: Finished, **counts: int) -> TwoStages:
    """The detector of a finished run; counts: as the detectors take them, else those of its run."""
    proposals = finished.number("test_proposals")
    counts = counts or ({"test_proposals": proposals} if proposals else {})
    trunk, classes = random_trunk(finished.arch), len(finished.class_names)
    kind, no_masks = kind_of(finished)
    if kind == "fpn":
        return finished.loaded(FPNDetector(trunk, classes, masks=not no_masks, **counts))
    return finished.loaded(Detector(trunk, classes, **counts))


def detection_set(args: argparse.Namespace) -> DetectionSet:
    """The images and classes."""
    train_split = None if args.eval_only else args.train_split
    classes = tuple(args.classes) if args.classes else None
    part = Part(args.fraction, args.fraction_seed) if args.fraction else None
    what = (args.data, train_split, args.test_split, classes, part)
    return _load_coco(*what, with_masks(args)) if args.layout == "coco" else _load_voc(*what)


_load_voc, _load_coco = lru_cache(maxsize=1)(load_voc), lru_cache(maxsize=1)(load_coco)
