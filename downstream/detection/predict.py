"""`detect.py predict`: a finished detector on any images -> pictures with boxes, and all boxes as JSON."""

import argparse

from torch import Tensor, nn

from downstream.common.finished import Finished, Prediction, build_parser, run
from downstream.detection.data import as_tensor, resize
from downstream.detection.inference import in_pixels
from downstream.detection.options import finished_model
from downstream.detection.recipes import RECIPES
from downstream.detection.report import draw_detections


def main(argv: list[str]) -> int:
    """Run the words after `predict`; returns the exit code."""
    parser = build_parser("detect.py", __doc__)
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score that is drawn (%(default)s)")
    return run(parser.parse_args(argv), "detect.py", finished_model, predict)


def predict(args: argparse.Namespace, finished: Finished, model: nn.Module, pixels: Tensor, name: str) -> Prediction:
    """The picture with its objects, and a record of each; found at the size at which the run was tested."""
    published = RECIPES["voc"]  # COCO is tested at the same sizes
    sizes = [finished.number(size) or getattr(published, size) for size in ("test_size", "max_size")]
    picture = pixels.permute(1, 2, 0).numpy()
    shown = as_tensor(resize(picture, *sizes))
    (result,) = model([shown.to(args.device)])
    found = in_pixels(result, shown.shape[1:], picture.shape[:2])
    objects = [
        {"class": finished.class_names[label - 1], "score": round(score, 4), "box": [round(s, 2) for s in box]}
        for label, score, box in zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    ]
    for record, mask in zip(objects, found.masks, strict=False):
        record["mask"] = {"size": list(mask["size"]), "counts": mask["counts"].decode()}  # as pycocotools reads it
    return draw_detections(picture, found, finished.class_names, args.threshold), {"objects": objects}
