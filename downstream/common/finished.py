"""Finished runs of detect.py and segment.py: loaded, and used by `predict IMAGE...` on any images."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from downstream.common.pictures import image_files, read_picture
from downstream.common.program import write_json
from pixpro.checkpoints import checkpoint
from pixpro.command_line import OneLineParser
from pixpro.errors import UserError, one_line_errors
from pixpro.method.trunks import CHOICES

Prediction = tuple[Image.Image, dict[str, Any]]  # what is seen in an image: as a picture, and as facts


@dataclass(frozen=True)
class Finished:
    """A trained model: its trunk's arch, its classes, the settings of its run and its weights."""

    path: Path
    arch: str
    class_names: list[str]
    settings: dict[str, Any]
    state: dict[str, Tensor]

    def number(self, name: str) -> int | None:
        """A whole number above zero among the settings; None when it was not given."""
        value = self.settings.get(name)
        return value if isinstance(value, int) and value > 0 else None

    def loaded(self, model: nn.Module) -> nn.Module:
        """A model of the same kind with these weights; UserError when it is of another kind."""
        try:
            model.load_state_dict(self.state)
        except RuntimeError as error:
            raise UserError(f"{self.path} holds another model than its settings make; it was altered") from error
        return model


def load_finished(path: Path, program: str) -> Finished:
    """The run's model; UserError for other files. program: detect.py or segment.py, which must have made it."""
    state = checkpoint.load(path)
    settings = state["config"]
    if not isinstance(settings, dict) or settings.get("program") != program:
        raise UserError(f"{path} was not made by {program}; expected the {checkpoint.LAST} in its output folder")
    arch, names = settings.get("backbone"), settings.get("class_names")
    if arch not in CHOICES or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} does not say which backbone and classes it has; expected a checkpoint of {program}")
    return Finished(path, arch, names, settings, state["model"])


def build_parser(prog: str, description: str) -> OneLineParser:
    """The options of any `predict`."""
    parser = OneLineParser(prog=f"{prog} predict", description=description, allow_abbrev=False)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files, or folders of them")
    parser.add_argument("--weights", type=Path, required=True, help=f"the last.pth.tar of a finished run of {prog}")
    parser.add_argument("--output-dir", type=Path, default=Path("predictions"), help="default: %(default)s")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    return parser


@torch.no_grad()
@one_line_errors
def run(
    args: argparse.Namespace,
    program: str,
    build: Callable[[Finished], nn.Module],
    predict: Callable[[argparse.Namespace, Finished, nn.Module, Tensor, str], Prediction],
) -> int:
    """Predict for every image and write its picture, and predictions.json; returns the exit code.

    predict: settings, run, model, pixels (3, H, W) uint8 and the picture's name -> what is seen in the image.
    """
    args.device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if args.device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: there is no CUDA device here; use --device cpu")
    finished, files = load_finished(args.weights, program), given_files(args.images)
    if args.output_dir.exists() and not args.output_dir.is_dir():
        raise UserError(f"{args.output_dir} is a file; --output-dir expects a folder")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    model = build(finished).to(args.device).eval()
    records = []
    for path, name in zip(files, picture_names(files), strict=True):
        pixels = read_picture(path)
        picture, facts = predict(args, finished, model, pixels, name)
        picture.save(args.output_dir / name)
        height, width = pixels.shape[1:]
        records.append({"file": str(path), "width": width, "height": height, "picture": name, **facts})
    write_json(args.output_dir / "predictions.json", {"classes": finished.class_names, "images": records})
    print(f"wrote {args.output_dir}/predictions.json and {len(records)} pictures")
    return 0


def given_files(given: list[Path]) -> list[Path]:
    """The files, folders taken apart; UserError for what is not there."""
    files: list[Path] = []
    for path in given:
        if path.is_dir():
            files += image_files(path)
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"no image {path}; give image files, or folders of them")
    return files


def picture_names(files: list[Path]) -> list[str]:
    """A PNG's name for each file: its stem, with a number where two files share it."""
    names: dict[str, None] = {}  # in order
    for path in files:
        name, number = path.stem, 1
        while name in names:
            number += 1
            name = f"{path.stem}_{number}"
        names[name] = None
    return [f"{name}.png" for name in names]
