"""The command lines of detect.py and segment.py: what both offer, and what follows from it."""

import argparse
from pathlib import Path

from downstream.common.arguments import class_names, natural, positive, positive_float
from downstream.common.precision import add_option
from pixpro.command_line import OneLineParser
from pixpro.method.trunks import CHOICES


def build_parser(prog: str, manual: str, layouts: tuple[str, ...]) -> OneLineParser:
    """A command line with the options that any fine-tuning program has; the first layout is the default."""
    form = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog=prog, description=manual, formatter_class=form, allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--weights", required=True, help="checkpoint with the trunk, or `none`: a trunk at random")
    parser.add_argument("--eval-only", action="store_true", help="test only; --weights is the checkpoint of a run")
    parser.add_argument("--classes", type=class_names, help="text file with the classes to use, a name on each line")
    parser.add_argument("--arch", choices=CHOICES, help="backbone; default: the checkpoint's, resnet50 with none")
    parser.add_argument("--output-dir", type=Path, help="where everything is written; default: output/NAME")
    parser.add_argument("--resume", default="", help="checkpoint to go on from, or auto: the one in the output folder")
    parser.add_argument("--batch-size", type=positive, default=16, help="images per iteration, over all processes")
    parser.add_argument("--scale", type=positive_float, default=1.0, help="length of the schedule, in published ones")
    parser.add_argument("--iterations", type=positive, help="length of the schedule; default: the published, scaled")
    parser.add_argument("--lr", type=positive_float, help="learning rate of this batch; default: the published, scaled")
    parser.add_argument("--seed", type=natural, default=0, help="seed of the new layers, the order and augmentation")
    parser.add_argument("--nproc", type=positive, help="processes; default: one per GPU, or one on a CPU")
    parser.add_argument("--workers", type=int, default=-1, help="loader processes of each process; -1: from the cores")
    add_option(parser)
    parser.add_argument("--log-every", type=positive, default=20, help="iterations between lines of metrics")
    parser.add_argument("--save-every", type=positive, default=5000, help="iterations between checkpoints")
    parser.add_argument("--pictures", type=natural, default=8, help="test images to draw the result on")
    parser.add_argument("--layout", choices=layouts, default=layouts[0], help="of the data, and so the recipe")
    return parser


def read(parser: OneLineParser, argv: list[str] | None, task: str) -> argparse.Namespace:
    """The settings of a command line; the output folder, where it is not given, follows from the others."""
    args = parser.parse_args(argv)
    args.program = parser.prog
    if args.iterations and args.scale != 1:
        parser.error("--iterations and --scale both say how long; give one of them")
    if args.eval_only and args.resume:
        parser.error("--eval-only tests the checkpoint of --weights; leave out --resume")
    if args.output_dir is None and args.eval_only:
        args.output_dir = Path(args.weights).parent / f"test_on_{args.data.resolve().name}"
    if args.output_dir is None:
        args.output_dir = Path("output") / f"{task}_{args.layout}_{Path(args.weights).stem}_seed{args.seed}"
    return args
