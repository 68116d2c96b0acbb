"""segment.py's command line -> checked settings: recipe, data set with its classes, model."""

import argparse
from pathlib import Path

import numpy as np

from downstream.common.arguments import positive
from downstream.common.finished import Finished, load_finished
from downstream.common.options import build_parser, read
from downstream.common.program import check_output, load_trunk, random_trunk, trunk_arch
from downstream.detection.own_data import named_or_found, voc_splits
from downstream.detection.recipes import SEGMENTATION_RECIPES, Recipe, scaled
from downstream.detection.voc import CLASS_NAMES
from downstream.segmentation.labels import SegmentationSet, check_labels, count_values
from downstream.segmentation.masks import CITYSCAPES_NAMES, VOID, MaskedImage, cityscapes_pairs, voc_pairs
from downstream.segmentation.net import FCN
from pixpro.errors import UserError

PUBLISHED = {"voc": ("VOC2012/train", "VOC2012/val"), "cityscapes": ("train", "val")}
NAMES = {"voc": ["background", *CLASS_NAMES], "cityscapes": list(CITYSCAPES_NAMES)}


def parse(manual: str, argv: list[str] | None) -> argparse.Namespace:
    """The command line's settings, defaults filled in."""
    parser = build_parser("segment.py", manual, tuple(PUBLISHED))
    parser.add_argument("--train-split", help="FOLDER/SPLIT or SPLIT; default: the published, or what the folder has")
    parser.add_argument("--test-split", help="likewise")
    parser.add_argument("--num-classes", type=positive, help="with the background; default: as many as occur")
    parser.add_argument("--void", choices=("255", "none"), default="255", help="mask value that does not count")
    parser.add_argument("--crop", type=positive, help="side of the training crops; default 513, Cityscapes 769")
    return read(parser, argv, "segment")


def recipe(args: argparse.Namespace) -> Recipe:
    """The layout's recipe, scaled, with what the command line changes."""
    published = SEGMENTATION_RECIPES[args.layout]
    return scaled(published, batch=args.batch_size, scale=args.scale, iterations=args.iterations, lr=args.lr)


def check(args: argparse.Namespace) -> list[str]:
    """What there is to say about the data; UserError for whatever is wrong, before anything is written.

    Fills in what follows from the data and the weights: the splits, the backbone, the classes and their mask values.
    """
    if not args.data.is_dir():
        raise UserError(f"no folder {args.data}; --data expects a data set in the layout of {args.layout}")
    if not args.resume:
        check_output(args)  # before all masks are read
    notes = fill_splits(args)
    if args.eval_only:
        finished = load_finished(Path(args.weights), args.program)
        args.backbone, args.class_names = finished.arch, finished.class_names
        args.mask_values = mask_values_of(finished)
    else:
        FCN(load_trunk(args.weights, args.arch), 2)
        args.backbone = trunk_arch(args.weights, args.arch)
    train, test = pairs(args)
    counts = count_values(train, tests=False), count_values(test, tests=True)
    if not args.eval_only:
        args.mask_values = mask_values(args, np.concatenate(counts))
        args.class_names = class_names(args)
    check_output(args)
    data = SegmentationSet(train, test, args.mask_values, args.class_names)
    return [*notes, *check_labels(data, *counts)]


def fill_splits(args: argparse.Namespace) -> list[str]:
    """Set the splits that were not named; returns what there is to say about it."""
    found = None
    if args.layout == "voc" and not (args.data / "VOC2012/ImageSets/Segmentation").is_dir():
        found = voc_splits(args.data, "Segmentation")
    splits = named_or_found(args.data, (args.train_split, args.test_split), found, PUBLISHED[args.layout])
    args.train_split, args.test_split, notes = splits
    return notes


def mask_values(args: argparse.Namespace, counts: np.ndarray) -> list[int]:
    """The values that are classes: the benchmark's, as many as asked for, or those that occur in the masks."""
    named = len(args.classes) if args.classes else None
    count = args.num_classes or named
    if args.layout == "cityscapes" and count not in (None, len(CITYSCAPES_NAMES)):
        raise UserError(f"--num-classes {count}: Cityscapes' layout has {len(CITYSCAPES_NAMES)}")
    if args.num_classes and named not in (None, args.num_classes):
        raise UserError(f"--num-classes {args.num_classes}, but --classes names {named}; leave one of them out")
    if args.num_classes and args.void == "none":
        raise UserError("--void none makes a class of every value that occurs; leave out --num-classes")
    if count and count > VOID:
        raise UserError(f"--num-classes {count}: a mask of one byte per pixel holds at most {VOID}")
    occurring = np.flatnonzero(counts.any(axis=0)).tolist()
    if args.void == "none":
        if named not in (None, len(occurring)):
            raise UserError(f"--classes names {named} classes, the masks hold {len(occurring)} values")
        return occurring
    if benchmark(args) and not count:
        count = len(NAMES[args.layout])
    return list(range(count)) if count else [value for value in occurring if value != VOID]


def benchmark(args: argparse.Namespace) -> bool:
    """Whether the classes are known beforehand."""
    return args.layout == "cityscapes" or (args.train_split, args.test_split) == PUBLISHED["voc"]


def class_names(args: argparse.Namespace) -> list[str]:
    """What to call the classes: as --classes says, as the benchmark does, or by their mask values."""
    if args.classes:
        return args.classes
    known = NAMES[args.layout] if benchmark(args) else []
    return known if len(known) == len(args.mask_values) else [str(value) for value in args.mask_values]


def pairs(args: argparse.Namespace) -> tuple[list[MaskedImage], list[MaskedImage]]:
    """The files to train on, none with --eval-only, and to test on."""
    read_pairs = {"voc": voc_pairs, "cityscapes": cityscapes_pairs}[args.layout]
    train = [] if args.eval_only else read_pairs(args.data, args.train_split)
    return train, read_pairs(args.data, args.test_split)


def segmentation_set(args: argparse.Namespace) -> SegmentationSet:
    """The images, masks and classes, once `check` has found these."""
    return SegmentationSet(*pairs(args), args.mask_values, args.class_names)


def build_model(args: argparse.Namespace) -> FCN:
    """The network on the pre-trained trunk, or with --eval-only the trained one."""
    if args.eval_only:
        return finished_model(load_finished(Path(args.weights), args.program))
    return FCN(load_trunk(args.weights, args.arch), len(args.class_names))


def finished_model(finished: Finished) -> FCN:
    """The network of a finished run."""
    return finished.loaded(FCN(random_trunk(finished.arch), len(finished.class_names)))


def mask_values_of(finished: Finished) -> list[int]:
    """The mask values of a finished run's classes; UserError when it does not say them."""
    values = finished.settings.get("mask_values")
    fits = isinstance(values, list) and len(values) == len(finished.class_names)
    if not fits or not all(isinstance(value, int) and 0 <= value <= 255 for value in values):
        raise UserError(f"{finished.path} does not say the mask values of its classes; expected a run of segment.py")
    return values
