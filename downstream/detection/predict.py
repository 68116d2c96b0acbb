"""`detect.py predict`: a finished detector on any images -> pictures with boxes, and all boxes as JSON."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch

from downstream.common.finished import Finished
from downstream.common.pictures import read_picture
from downstream.common.predicting import build_parser, picture_names, run
from downstream.detection.data import as_tensor, resize
from downstream.detection.drawing import draw_detections
from downstream.detection.inference import in_pixels
from downstream.detection.options import finished_model
from downstream.detection.recipes import RECIPES


def main(argv: list[str]) -> int:
    """Run the words after `predict`; returns the exit code."""
    parser = build_parser("detect.py", __doc__)
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score that is drawn (%(default)s)")
    return run(parser.parse_args(argv), "detect.py", predict)


@torch.no_grad()
def predict(args: argparse.Namespace, finished: Finished, device: torch.device, files: list[Path]) -> Iterator[dict]:
    """A record of the objects in each image, at the size at which the run was tested; its picture is written."""
    model = finished_model(finished).to(device).eval()
    published = RECIPES["voc"]  # COCO is tested at the same sizes
    sizes = [finished.number(name) or getattr(published, name) for name in ("test_size", "max_size")]
    for path, name in zip(files, picture_names(files), strict=True):
        pixels = read_picture(path).permute(1, 2, 0).numpy()
        height, width = pixels.shape[:2]
        shown = as_tensor(resize(pixels, *sizes))
        (result,) = model([shown.to(device)])
        found = in_pixels(result, shown.shape[1:], (height, width))
        draw_detections(pixels, found, finished.class_names, args.threshold).save(args.output_dir / name)
        objects = [
            {"class": finished.class_names[label - 1], "score": round(score, 4), "box": [round(s, 2) for s in box]}
            for label, score, box in zip(
                found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True
            )
        ]
        for record, mask in zip(objects, found.masks, strict=False):
            record["mask"] = {"size": list(mask["size"]), "counts": mask["counts"].decode()}  # as pycocotools reads it
        yield {"file": str(path), "width": width, "height": height, "picture": name, "objects": objects}
