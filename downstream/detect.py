#!/usr/bin/env python
"""Fine-tune a pre-trained trunk as a detector, on torchvision alone: Faster R-CNN C4, or Mask R-CNN FPN.

    python detect.py --data DATA --weights CHECKPOINT                     VOC 07+12 -> VOC 07 test, 24k iterations
    python detect.py --data COCO --layout coco --weights CHECKPOINT       train2017 -> val2017, 90k iterations, boxes
    python detect.py --data COCO --layout coco --detector fpn --weights CHECKPOINT     any backbone; boxes and masks
    python detect.py --data DATA --weights CHECKPOINT --batch-size 4      another batch: the schedule is scaled
    python detect.py --data MY_FOLDER --weights CHECKPOINT --batch-size 4 --iterations 2000       your own, VOC's layout
    python detect.py --data DATA --weights output/RUN/last.pth.tar --eval-only                    test it again
    python detect.py predict IMAGE... --weights output/RUN/last.pth.tar                           pictures and JSON

The same detectors as detectron2's in train_voc.py and train_coco.py, where detectron2 cannot be had. --detector c4
takes ResNets, fpn any backbone, and the pre-trained pyramid of --neck fpn with it. It uses every GPU of
the machine (--nproc for fewer, or for processes on a CPU), or runs under torchrun. CHECKPOINT is whatever
pixpro.load_backbone reads; `none` is a trunk at random. DATA holds VOC2007 and VOC2012, or is itself a folder with
Annotations, ImageSets/Main and JPEGImages; docs/detect.md has the rest.
"""

import argparse
import dataclasses
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

from downstream.common.precise_bn import precise_batchnorm
from downstream.common.precision import autocast, loss_scaler, placed
from downstream.common.program import peak_memory, run_program, settings, write_json
from downstream.common.training import Batch, Learner, resume, save, step_seed, to_device, train
from downstream.detection import options, predict
from downstream.detection.annotated import DetectionSet
from downstream.detection.data import ImagesToTest, TrainImages, grouped_batches, loader
from downstream.detection.detector import parameter_groups
from downstream.detection.inference import detect
from downstream.detection.recipes import RECIPES, Recipe, scaling_line
from downstream.detection.report import scores_of, table, write_pictures
from pixpro.checkpoints import checkpoint
from pixpro.run.output import lasting_output
from pixpro.training.processes import Process
from pixpro.training.sync_batchnorm import BatchNorm


def main(argv: list[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    with lasting_output():
        if argv[:1] == ["predict"]:
            return predict.main(argv[1:])
        return run_program(options.parse(__doc__, argv), options.check, run)


def run(args: argparse.Namespace, process: Process) -> None:
    """Train, test and report; in each of the processes."""
    recipe, data = options.recipe(args), options.detection_set(args)
    torch.manual_seed(args.seed)
    model = placed(BatchNorm.convert(options.build_model(args), process.world_size), process.device)
    optimizer = torch.optim.SGD(parameter_groups(model, recipe.weight_decay), lr=recipe.lr, momentum=recipe.momentum)
    learner = Learner(model, optimizer, loss_scaler(args.amp, process.device))
    first = recipe.iterations if args.eval_only else resume(args, learner)
    if process.is_main:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        if not args.eval_only:
            print(scaling_line(RECIPES[args.layout], recipe, options.length(args)), flush=True)
        print(f"{len(data.train)} training images, {len(data.test)} test images, {len(data.class_names)} classes")
    started = time.perf_counter()
    if steps := range(first, recipe.iterations):
        batches = train_batches(args, recipe, data, process, args.seed, steps)
        train(args, learner, batches, learning_rate=recipe.learning_rate, steps=steps, process=process)
        finish(args, recipe, data, model, process)
        save(args, learner, recipe.iterations, process)
    report(args, recipe, data, model, process, time.perf_counter() - started)


def train_batches(
    args: argparse.Namespace, recipe: Recipe, data: DetectionSet, process: Process, seed: int, steps: range
) -> Iterator[Batch]:
    """This process's batches of the stream that belongs to the seed."""
    dataset = TrainImages(data.train, short_sides=recipe.train_sizes, max_size=recipe.max_size, seed=seed)
    share = dict(batch=recipe.batch // process.world_size, rank=process.rank, world_size=process.world_size)
    order = grouped_batches([image.wide for image in data.train], seed=seed, **share)
    return loader(dataset, itertools.islice(order, steps.start, steps.stop), args.workers)


def finish(args: argparse.Namespace, recipe: Recipe, data: DetectionSet, model: nn.Module, process: Process) -> None:
    """BatchNorm statistics of the final weights, from other batches of the training images."""
    torch.manual_seed(step_seed(args.seed, recipe.iterations, process.rank))
    batches = train_batches(args, recipe, data, process, args.seed + 1, range(recipe.precise_bn))
    with autocast(args.amp, process.device):
        precise_batchnorm(model, (to_device(batch, process.device) for batch in batches))


def report(
    args: argparse.Namespace, recipe: Recipe, data: DetectionSet, model: nn.Module, process: Process, seconds: float
) -> None:
    """Test, and write what came out."""
    images = ImagesToTest(data.test, short_side=recipe.test_size, max_size=recipe.max_size)
    with autocast(args.amp, process.device):
        detections = detect(model, images, process=process, workers=args.workers)
    if not process.is_main:
        return
    scores = scores_of(data, detections)
    write_pictures(args.output_dir / "pictures", data.test[: args.pictures], detections, data.class_names)
    facts = {"settings": settings(args), "recipe": dataclasses.asdict(recipe), "torch": torch.__version__}
    cost = {"seconds": round(seconds), "memory_gib": round(peak_memory(process), 2), "processes": process.world_size}
    write_json(args.output_dir / "results.json", {"scores": scores, **cost, **facts})
    trained = "" if args.eval_only else f", {recipe.iterations} iterations of {recipe.batch}"
    label = f"{Path(args.weights).name}, {args.test_split}{trained}"
    print(table(args.layout, args.detector, label, scores, comparable=options.published(args) and not args.eval_only))
    more = "" if args.eval_only else f", {checkpoint.LAST}, metrics.jsonl"
    print(f"wrote {args.output_dir}/results.json, pictures/{more}")


if __name__ == "__main__":
    sys.exit(main())
