#!/usr/bin/env python
"""Fine-tune a pre-trained trunk for semantic segmentation, on torch alone: FCN with stride 16, scored by mIoU.

    python segment.py --data DATA --weights CHECKPOINT                           VOC2012 train -> val, 30k iterations
    python segment.py --data CITYSCAPES --layout cityscapes --weights CHECKPOINT     train -> val, 90k iterations
    python segment.py --data DATA --weights CHECKPOINT --batch-size 4            another batch: the schedule is scaled
    python segment.py --data MY_FOLDER --weights CHECKPOINT --batch-size 4 --iterations 2000    your own, VOC's layout
    python segment.py --data DATA --weights output/RUN/last.pth.tar --eval-only                 test it again
    python segment.py predict IMAGE... --weights output/RUN/last.pth.tar                        pictures, masks and JSON

CHECKPOINT is whatever pixpro.load_backbone reads; `none` is a trunk at random. It uses every GPU of the machine
(--nproc for fewer, or for processes on a CPU), or runs under torchrun. docs/detect.md says where the settings are from.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from downstream.common.precision import autocast, loss_scaler, placed
from downstream.common.program import peak_memory, run_program, settings, write_json
from downstream.common.training import Learner, resume, save, train
from downstream.detection.data import grouped_batches, loader
from downstream.detection.detector import parameter_groups
from downstream.detection.recipes import SEGMENTATION_RECIPES, Recipe, scaling_line
from downstream.segmentation import options, predict
from downstream.segmentation.data import TrainCrops, WholeImages
from downstream.segmentation.labels import SegmentationSet
from downstream.segmentation.net import FCN
from downstream.segmentation.scores import scores as iou_scores
from downstream.segmentation.scores import table, tested, write_masks
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
    recipe, data = options.recipe(args), options.segmentation_set(args)
    torch.manual_seed(args.seed)
    model = placed(BatchNorm.convert(options.build_model(args), process.world_size), process.device)
    optimizer = torch.optim.SGD(parameter_groups(model, recipe.weight_decay), lr=recipe.lr, momentum=recipe.momentum)
    learner = Learner(model, optimizer, loss_scaler(args.amp, process.device))
    first = recipe.iterations if args.eval_only else resume(args, learner)
    if process.is_main:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        if not args.eval_only:
            print(scaling_line(SEGMENTATION_RECIPES[args.layout], recipe, args.scale), flush=True)
        print(f"{len(data.train)} training images, {len(data.test)} test images, {data.num_classes} classes")
    started = time.perf_counter()
    if steps := range(first, recipe.iterations):
        share = dict(batch=recipe.batch // process.world_size, rank=process.rank, world_size=process.world_size)
        order = grouped_batches([0] * len(data.train), seed=args.seed, **share)
        crops = TrainCrops(data, crop=args.crop or recipe.train_sizes[0], seed=args.seed)
        batches = loader(crops, itertools.islice(order, steps.start, steps.stop), args.workers)
        train(args, learner, batches, learning_rate=recipe.learning_rate, steps=steps, process=process)
        save(args, learner, recipe.iterations, process)
    report(args, recipe, data, model, process, time.perf_counter() - started)


def report(
    args: argparse.Namespace, recipe: Recipe, data: SegmentationSet, model: FCN, process: Process, seconds: float
) -> None:
    """Test, and write what came out."""
    images = WholeImages(data)
    with autocast(args.amp, process.device):
        matrix = tested(model, images, process=process, workers=args.workers)
    if not process.is_main:
        return
    scores = iou_scores(matrix, data.class_names)
    with autocast(args.amp, process.device):
        write_masks(args.output_dir / "pictures", model, images, args.pictures, process)
    cost = {"seconds": round(seconds), "memory_gib": round(peak_memory(process), 2), "processes": process.world_size}
    facts = {"scores": scores, **cost, "settings": settings(args), "torch": torch.__version__}
    write_json(args.output_dir / "results.json", facts)
    trained = "" if args.eval_only else f", {recipe.iterations} iterations of {recipe.batch}"
    print(table(args.layout, f"{Path(args.weights).name}, {args.test_split}{trained}", scores))
    more = "" if args.eval_only else f", {checkpoint.LAST}, metrics.jsonl"
    print(f"wrote {args.output_dir}/results.json, pictures/{more}")


if __name__ == "__main__":
    sys.exit(main())
