"""detect.py's command line -> checked settings: recipe, data set, trunk."""

import argparse
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from downstream.common.options import build_parser, positive, read
from downstream.common.program import check_output, load_trunk
from downstream.detection.annotated import DetectionSet
from downstream.detection.checks import check_set
from downstream.detection.coco import load_coco
from downstream.detection.coco_json import require_pycocotools
from downstream.detection.detector import Detector
from downstream.detection.recipes import RECIPES, Recipe, scaled
from downstream.detection.voc import load_voc
from pixpro.errors import UserError

SPLITS = {"voc": ("voc_2007_trainval+voc_2012_trainval", "voc_2007_test"), "coco": ("train2017", "val2017")}


def parse(manual: str, argv: list[str] | None) -> argparse.Namespace:
    """The command line's settings, defaults filled in."""
    parser = build_parser("detect.py", manual, SPLITS)
    parser.add_argument("--train-split", help="default: VOC 2007 and 2012 trainval, or train2017; `+` joins several")
    parser.add_argument("--test-split", help="default: voc_2007_test, or val2017; also FOLDER/SPLIT or SPLIT")
    parser.add_argument("--train-sizes", type=positive, nargs="+", help="short sides to choose from; default: recipe's")
    parser.add_argument("--test-size", type=positive, help="short side in the test; default 800")
    parser.add_argument("--max-size", type=positive, help="longest side; default 1333")
    parser.add_argument("--regions", type=positive, help="regions per training image; default 512")
    parser.add_argument("--test-proposals", type=positive, help="proposals per test image; default 1000")
    parser.add_argument("--precise-bn", type=positive, help="batches for the last BatchNorm statistics; default 200")
    return read(parser, argv, SPLITS, "detect")


def recipe(args: argparse.Namespace) -> Recipe:
    """The layout's recipe, scaled, with what the command line changes."""
    published = RECIPES[args.layout]
    used = scaled(published, batch=args.batch_size, scale=args.scale)
    names = ("test_size", "max_size", "regions", "test_proposals", "precise_bn")
    changes = {name: getattr(args, name) for name in names if getattr(args, name)}
    if args.train_sizes:
        changes["train_sizes"] = tuple(args.train_sizes)
    return replace(used, **changes)


def check(args: argparse.Namespace) -> list[str]:
    """What there is to say about the data; UserError for whatever is wrong, before anything is written."""
    if not args.data.is_dir():
        raise UserError(f"no folder {args.data}; --data expects a data set in {args.layout.upper()}'s layout")
    if args.layout == "coco":
        require_pycocotools()
    data = detection_set(args)
    Detector(load_trunk(args.weights, args.arch), len(data.class_names))
    check_output(args)
    return check_set(data)


def detection_set(args: argparse.Namespace) -> DetectionSet:
    """The images and classes."""
    return _load(args.layout, args.data, args.train_split, args.test_split)


@lru_cache(maxsize=1)
def _load(layout: str, data: Path, train_split: str, test_split: str) -> DetectionSet:
    return {"voc": load_voc, "coco": load_coco}[layout](data, train_split, test_split)
