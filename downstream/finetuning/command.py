"""The command line of train_voc.py and train_coco.py: what is missing is said first, then detectron2 takes over."""

import argparse
import ast
import importlib.util
import os
import sys
from pathlib import Path

from downstream.common.arguments import class_names, positive, positive_float, share
from downstream.finetuning.paths import missing_paths, present

HERE = Path(__file__).resolve().parents[1]
CONFIGS = HERE / "configs"
INSTALL = {
    "torch": "`source install_packages.sh` in the project's folder makes an environment with it",
    "detectron2": "`source install_packages.sh --detectron2` in the project's folder puts it on the path",
}


def main(description: str, config: str, datasets: tuple[str, ...]) -> None:
    """Parse the command line and run; what is missing is said in a line each, with exit code 2.

    config: stem of the default config file. datasets: the names that it trains and tests on.
    """
    arguments = parse(description, CONFIGS / f"{config}.yaml")
    arguments.layout = datasets[0].partition("_")[0]
    problems = missing(arguments, datasets)
    if problems:
        sys.exit(max(failure(problem) for problem in problems))
    run(arguments)


def parse(description: str, config_file: Path) -> argparse.Namespace:
    """The arguments; config changes (KEY VALUE ...) may stand before, between or after the flags."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", type=Path, default=config_file, help="detectron2 config (%(default)s)")
    parser.add_argument(
        "--overlay",
        type=Path,
        default=CONFIGS / "weights_rgb.yaml",
        help="how the weights expect images: weights_rgb.yaml or weights_msra.yaml (%(default)s)",
    )
    parser.add_argument("--data", type=Path, help="folder of one's own in this layout, instead of DETECTRON2_DATASETS")
    parser.add_argument("--train-split", help="of --data: SPLIT, in VOC's layout FOLDER/SPLIT, in COCO's FILE.json")
    parser.add_argument("--test-split", help="likewise")
    parser.add_argument("--classes", type=class_names, help="text file with the classes to use, a name on each line")
    parser.add_argument("--fraction", type=share, help="part of the training images, like 0.01 or 0.1")
    parser.add_argument("--fraction-seed", type=int, default=0, help="which part (%(default)s)")
    parser.add_argument("--iterations", type=positive, help="length of the schedule (the config's, scaled)")
    parser.add_argument("--lr", type=positive_float, help="learning rate of this batch (the config's, scaled)")
    parser.add_argument("--weights", help="converted weights, a .pkl file; the same as MODEL.WEIGHTS")
    parser.add_argument("--output-dir", type=Path, help="where everything is written; the same as OUTPUT_DIR")
    parser.add_argument("--num-gpus", type=int, help="processes on this machine (default: all GPUs; 0 is the CPU)")
    parser.add_argument("--num-machines", type=int, default=1, help="machines of the run (%(default)s)")
    parser.add_argument("--machine-rank", type=int, default=0, help="number of this machine (%(default)s)")
    parser.add_argument("--dist-url", default="auto", help="where the machines meet, like tcp://HOST:PORT")
    parser.add_argument(
        "--trial", action="store_true", help="small sizes, to see it run on a CPU (configs/cpu_trial.yaml)"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the output folder")
    parser.add_argument(
        "--eval-only", action="store_true", help="test MODEL.WEIGHTS, or with --resume the last checkpoint"
    )
    parser.add_argument("options", nargs="*", metavar="KEY VALUE", help="changes of the config: SOLVER.MAX_ITER 100")
    arguments = parser.parse_intermixed_args()
    os.environ.setdefault("DETECTRON2_DATASETS", str(HERE / "datasets"))
    return arguments


def missing(arguments: argparse.Namespace, datasets: tuple[str, ...]) -> list[str]:
    """A line for each of data, weights and detectron2 that is not there, with what to do about it."""
    options = dict(zip(arguments.options[::2], arguments.options[1::2], strict=False))
    problems = []

    root = Path(os.environ["DETECTRON2_DATASETS"])
    if arguments.data is not None:
        datasets = ()  # what the folder lacks is said where it is read
    changed = [*names_in(options.get("DATASETS.TRAIN")), *names_in(options.get("DATASETS.TEST"))]
    absent = missing_paths(root, changed or present(root, datasets))
    if absent:
        more = f" and {len(absent) - 1} more paths are" if len(absent) > 1 else " is"
        problems.append(
            f"no data: {absent[0]}{more} missing; set DETECTRON2_DATASETS to the folder that holds "
            f"{absent[0].relative_to(root).parts[0]} (now {root}), or name a folder of your own with --data"
        )

    weights = options.get("MODEL.WEIGHTS", arguments.weights)
    if weights and not arguments.resume and "://" not in weights and not Path(weights).is_file():
        problems.append(
            f"no weights: {weights} is missing; make it with `python {HERE / 'convert-pretrain-to-detectron2.py'} "
            f"CHECKPOINT {weights}`, or name another file with MODEL.WEIGHTS"
        )

    for package, remedy in INSTALL.items():
        if importlib.util.find_spec(package) is None:
            problems.append(f"{package} is not installed: {remedy}")
            break
    return problems


def names_in(option: str | None) -> tuple[str, ...]:
    """The data set names in an option like "('voc_2007_trainval',)"; none if it cannot be read that way."""
    try:
        value = ast.literal_eval(option or "()")
    except (ValueError, SyntaxError):
        value = option
    return tuple(value) if isinstance(value, tuple | list) else (str(value),)


def run(arguments: argparse.Namespace) -> None:
    """Hand over to detectron2; an error of the user's, or of its installation, becomes one line and exit code 2."""
    # Only here, so that the lines above need neither torch nor seconds.
    from pixpro.errors import UserError

    try:
        from downstream.finetuning.run import run as fine_tune

        fine_tune(arguments)
    except ImportError as error:
        sys.exit(failure(f"detectron2 cannot be used: {error}; {INSTALL['detectron2']}"))
    except UserError as error:
        sys.exit(failure(str(error)))


def failure(problem: str) -> int:
    """The exit code for wrong input, after a line that says what is wrong."""
    print(f"error: {problem}", file=sys.stderr)
    return 2
