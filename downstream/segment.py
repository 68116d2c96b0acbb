#!/usr/bin/env python
"""Fine-tune a pre-trained trunk for semantic segmentation, on torch alone: FCN with stride 16, scored by mIoU.

    python segment.py --data DATA --weights CHECKPOINT                           VOC2012 train -> val, 30k iterations
    python segment.py --data CITYSCAPES --layout cityscapes --weights CHECKPOINT     train -> val, 90k iterations
    python segment.py --data DATA --weights CHECKPOINT --batch-size 4            another batch: the schedule is scaled
    python segment.py --data VOC --train-split trainval --test-split test --weights none --arch resnet18

CHECKPOINT is whatever pixpro.load_backbone reads; `none` is a trunk at random. It uses every GPU of the machine
(--nproc for fewer, or for processes on a CPU), or runs under torchrun. docs/detect.md says where the settings are from.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from downstream.common.options import build_parser, positive, read
from downstream.common.program import check_output, load_trunk, peak_memory, run_program, settings
from downstream.common.training import resume, save, train
from downstream.detection.data import loader
from downstream.detection.detector import parameter_groups
from downstream.detection.recipes import SEGMENTATION_RECIPES, Recipe, scaled, scaling_line
from downstream.detection.report import write_results
from downstream.detection.voc import CLASS_NAMES as VOC_CLASS_NAMES
from downstream.segmentation.data import TrainCrops, WholeImages, shuffled_batches
from downstream.segmentation.labels import SegmentationSet, check_labels, count_values, values_of_classes
from downstream.segmentation.masks import CITYSCAPES_NAMES, VOID
from downstream.segmentation.miou import scores as iou_scores
from downstream.segmentation.net import FCN
from downstream.segmentation.scores import table, tested, write_masks
from downstream.segmentation.sets import MaskedImage, cityscapes_pairs, voc_pairs
from pixpro.checkpoints import checkpoint
from pixpro.errors import UserError
from pixpro.training.distributed import Process, synchronise_batchnorm

SPLITS = {"voc": ("VOC2012/train", "VOC2012/val"), "cityscapes": ("train", "val")}


def main(argv: list[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    return run_program(parse(argv), check, run)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line's settings, defaults filled in."""
    parser = build_parser("segment.py", __doc__, SPLITS)
    parser.add_argument("--train-split", help="default: VOC2012/train, or train; FOLDER/SPLIT or SPLIT")
    parser.add_argument("--test-split", help="default: VOC2012/val, or val")
    parser.add_argument(
        "--num-classes", type=positive, help="with the background; default: the benchmark's, or as many as occur"
    )
    parser.add_argument(
        "--void", choices=("255", "none"), default="255", help="mask value that neither trains nor counts"
    )
    parser.add_argument("--crop", type=positive, help="side of the training crops; default 513, Cityscapes 769")
    return read(parser, argv, SPLITS, "segment")


def check(args: argparse.Namespace) -> list[str]:
    """What there is to say about the data; UserError for whatever is wrong, before anything is written."""
    if not args.data.is_dir():
        raise UserError(f"no folder {args.data}; --data expects a data set in the layout of {args.layout}")
    FCN(load_trunk(args.weights, args.arch), 2)
    check_output(args)
    train, test = pairs(args)
    counts = count_values(train, tests=False), count_values(test, tests=True)
    args.mask_values = mask_values(args, np.concatenate(counts))
    return list(check_labels(load(args), *counts))


def mask_values(args: argparse.Namespace, counts: np.ndarray) -> list[int]:
    """The values that are classes: the benchmark's, --num-classes of them, or those that occur in the masks."""
    if args.layout == "cityscapes" and args.num_classes not in (None, len(CITYSCAPES_NAMES)):
        raise UserError(f"--num-classes {args.num_classes}: Cityscapes' layout has {len(CITYSCAPES_NAMES)}")
    if args.num_classes and args.void == "none":
        raise UserError("--void none makes a class of every value that occurs; leave out --num-classes")
    if args.num_classes and args.num_classes > VOID:
        raise UserError(f"--num-classes {args.num_classes}: a mask of one byte per pixel holds at most {VOID}")
    known = {"cityscapes": 19, "voc": 21 if (args.train_split, args.test_split) == SPLITS["voc"] else None}
    count = args.num_classes or (known[args.layout] if args.void != "none" else None)
    return values_of_classes(counts, void=None if args.void == "none" else VOID, num_classes=count)


def pairs(args: argparse.Namespace) -> tuple[list[MaskedImage], list[MaskedImage]]:
    """The files to train on and to test on."""
    read = {"voc": voc_pairs, "cityscapes": cityscapes_pairs}[args.layout]
    return read(args.data, args.train_split), read(args.data, args.test_split)


def load(args: argparse.Namespace) -> SegmentationSet:
    """The images, masks and classes, once `check` has found these."""
    names = [str(value) for value in args.mask_values]
    if args.layout == "cityscapes":
        names = list(CITYSCAPES_NAMES)
    elif (args.train_split, args.test_split) == SPLITS["voc"] and len(names) == 21:
        names = ["background", *VOC_CLASS_NAMES]
    return SegmentationSet(*pairs(args), args.mask_values, names)


def run(args: argparse.Namespace, process: Process) -> None:
    """Train, test and report; in each of the processes."""
    published = SEGMENTATION_RECIPES[args.layout]
    recipe, data = scaled(published, batch=args.batch_size, scale=args.scale), load(args)
    torch.manual_seed(args.seed)
    model = FCN(load_trunk(args.weights, args.arch), data.num_classes)
    model = synchronise_batchnorm(model, process).to(process.device)
    optimizer = torch.optim.SGD(parameter_groups(model, recipe.weight_decay), lr=recipe.lr, momentum=recipe.momentum)
    first = resume(args, model, optimizer)
    if process.is_main:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        print(scaling_line(published, recipe, args.scale), flush=True)
        print(f"{len(data.train)} training images, {len(data.test)} test images, {data.num_classes} classes")
    started = time.perf_counter()
    if first < recipe.iterations:
        share = dict(batch=recipe.batch // process.world_size, rank=process.rank, world_size=process.world_size)
        order = shuffled_batches(len(data.train), seed=args.seed, **share)
        crops = TrainCrops(data, crop=args.crop or recipe.train_sizes[0], seed=args.seed)
        batches = loader(crops, itertools.islice(order, first, recipe.iterations), args.workers)
        span = dict(first=first, last=recipe.iterations)
        train(args, model, optimizer, batches, learning_rate=recipe.learning_rate, **span, process=process)
        save(args, model, optimizer, recipe.iterations, process)
    report(args, recipe, data, model, process, time.perf_counter() - started)


def report(
    args: argparse.Namespace, recipe: Recipe, data: SegmentationSet, model: FCN, process: Process, seconds: float
) -> None:
    """Test, and write what came out."""
    images = WholeImages(data)
    matrix = tested(model, images, process=process, workers=args.workers)
    if not process.is_main:
        return
    scores = iou_scores(matrix, data.class_names)
    write_masks(args.output_dir / "pictures", model, images, args.pictures, process)
    cost = {"seconds": round(seconds), "memory_gib": round(peak_memory(process), 2), "processes": process.world_size}
    facts = {"scores": scores, **cost, "settings": settings(args), "torch": torch.__version__}
    write_results(args.output_dir / "results.json", facts)
    label = f"{Path(args.weights).name}, {args.test_split}, {recipe.iterations} iterations of {recipe.batch}"
    print(table(args.layout, label, scores))
    print(f"wrote {args.output_dir}/results.json, pictures/, {checkpoint.LAST}, metrics.jsonl")


if __name__ == "__main__":
    sys.exit(main())
