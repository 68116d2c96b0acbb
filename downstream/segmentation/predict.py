"""`segment.py predict`: a finished network on any images -> masks, pictures of them, and the share of each class."""

import argparse

import numpy as np
from PIL import Image
from torch import Tensor, nn

from downstream.common.finished import Finished, Prediction, build_parser, run
from downstream.segmentation.masks import PALETTE
from downstream.segmentation.options import finished_model, mask_values_of


def main(argv: list[str]) -> int:
    """Run the words after `predict`; returns the exit code."""
    return run(build_parser("segment.py", __doc__).parse_args(argv), "segment.py", finished_model, predict)


def predict(args: argparse.Namespace, finished: Finished, model: nn.Module, pixels: Tensor, name: str) -> Prediction:
    """The mask over the picture, and the share of each class; masks/NAME has the classes' values."""
    values = np.array(mask_values_of(finished), np.uint8)
    predicted = model([pixels.to(args.device)])[0].argmax(dim=0).cpu().numpy()
    mask = Image.fromarray(values[predicted])
    mask.putpalette(PALETTE.tobytes())
    (args.output_dir / "masks").mkdir(exist_ok=True)
    mask.save(args.output_dir / "masks" / name)
    shown = pixels.permute(1, 2, 0).numpy() // 2 + PALETTE[predicted] // 2
    shares = np.bincount(predicted.ravel(), minlength=len(values)) / predicted.size
    found = {label: round(float(share), 4) for label, share in zip(finished.class_names, shares, strict=True)}
    return Image.fromarray(shown), {"mask": f"masks/{name}", "shares": found}
