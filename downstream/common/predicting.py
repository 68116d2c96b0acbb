"""`predict IMAGE...` of detect.py and segment.py: its command line, its images, its JSON file."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from downstream.common.finished import Finished, load_finished
from pixpro.command_line import OneLineParser
from pixpro.errors import UserError
from pixpro.images.kinds import is_image

Predict = Callable[[argparse.Namespace, Finished, torch.device, list[Path]], Iterator[dict]]


def build_parser(prog: str, description: str) -> OneLineParser:
    """The options of any `predict`."""
    parser = OneLineParser(prog=f"{prog} predict", description=description, allow_abbrev=False)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files, or folders of them")
    parser.add_argument("--weights", type=Path, required=True, help=f"the last.pth.tar of a finished run of {prog}")
    parser.add_argument("--output-dir", type=Path, default=Path("predictions"), help="default: %(default)s")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    return parser


def run(args: argparse.Namespace, program: str, predict: Predict) -> int:
    """Predict for every image and write predictions.json; returns the exit code.

    predict yields a record for each image and leaves its picture in args.output_dir.
    """
    try:
        device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if device.type == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: there is no CUDA device here; use --device cpu")
        finished, files = load_finished(args.weights, program), image_files(args.images)
        if args.output_dir.exists() and not args.output_dir.is_dir():
            raise UserError(f"{args.output_dir} is a file; --output-dir expects a folder")
        args.output_dir.mkdir(parents=True, exist_ok=True)
        records = list(predict(args, finished, device, files))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_json(args.output_dir / "predictions.json", {"classes": finished.class_names, "images": records})
    print(f"wrote {args.output_dir}/predictions.json and {len(records)} pictures")
    return 0


def image_files(given: list[Path]) -> list[Path]:
    """The files, folders taken apart; UserError for what is not there."""
    files: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if is_image(os.fsencode(p.name)) and p.is_file())
            if not inside:
                raise UserError(f"{path} holds no images")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"no image {path}; give image files, or folders of them")
    return files


def picture_names(files: list[Path]) -> list[str]:
    """A PNG's name for each file: its stem, with a number where two files share it."""
    names: list[str] = []
    taken: set[str] = set()
    for path in files:
        name, number = path.stem, 1
        while name in taken:
            number += 1
            name = f"{path.stem}_{number}"
        taken.add(name)
        names.append(f"{name}.png")
    return names


def write_json(path: Path, content: dict) -> None:
    """content as JSON; the file appears complete or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(partial, path)
