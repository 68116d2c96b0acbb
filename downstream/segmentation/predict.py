"""`segment.py predict`: a finished network on any images -> masks, pictures of them, and the share of each class."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from downstream.common.finished import Finished
from downstream.common.pictures import read_picture
from downstream.common.predicting import build_parser, picture_names, run
from downstream.segmentation.options import finished_model, mask_values_of
from pixpro.scenes.files import voc_palette


def main(argv: list[str]) -> int:
    """Run the words after `predict`; returns the exit code."""
    return run(build_parser("segment.py", __doc__).parse_args(argv), "segment.py", predict)


@torch.no_grad()
def predict(args: argparse.Namespace, finished: Finished, device: torch.device, files: list[Path]) -> Iterator[dict]:
    """A record of each image's classes; beside it masks/NAME.png with their values, and the mask over the picture."""
    model = finished_model(finished).to(device).eval()
    values = np.array(mask_values_of(finished), np.uint8)
    palette = np.array(voc_palette(), np.uint8).reshape(256, 3)
    (args.output_dir / "masks").mkdir(exist_ok=True)
    for path, name in zip(files, picture_names(files), strict=True):
        pixels = read_picture(path)
        predicted = model([pixels.to(device)])[0].argmax(dim=0).cpu().numpy()
        mask = Image.fromarray(values[predicted])
        mask.putpalette(voc_palette())
        mask.save(args.output_dir / "masks" / name)
        shown = pixels.permute(1, 2, 0).numpy() // 2 + palette[predicted] // 2
        Image.fromarray(shown).save(args.output_dir / name)
        height, width = predicted.shape
        shares = np.bincount(predicted.ravel(), minlength=len(values)) / predicted.size
        found = {label: round(float(share), 4) for label, share in zip(finished.class_names, shares, strict=True)}
        sizes = {"width": width, "height": height}
        yield {"file": str(path), **sizes, "picture": name, "mask": f"masks/{name}", "shares": found}
