"""Folders in COCO's layout -> annotated images, and COCO AP of what was found in them."""

import contextlib
import io
import json
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from downstream.detection.annotated import AnnotatedImage, DetectionSet, file_inside, trainable
from downstream.detection.voc_ap import Detections
from pixpro.errors import UserError

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def load_coco(data: Path, train_split: str, test_split: str) -> DetectionSet:
    """Images of data/annotations/instances_SPLIT.json and data/SPLIT; crowds are not trained on."""
    train, categories = _read_split(data, train_split)
    test, test_categories = _read_split(data, test_split)
    if test_categories != categories:
        raise UserError(f"{train_split} and {test_split} of {data} have different categories")
    train = trainable([image.only(~image.ignored) for image in train], train_split)
    return DetectionSet(train, test, list(categories.values()), _annotation_file(data, test_split))


def require_pycocotools() -> None:
    """UserError when COCO AP could not be computed here."""
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError as error:
        raise UserError("COCO AP needs pycocotools: pip install pycocotools") from error


def coco_scores(annotations: Path, detections: Mapping[str, Detections]) -> dict[str, float]:
    """Box AP, AP50, AP75, APs, APm, APl in percent, by pycocotools over all images of the JSON file."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth = COCO(str(annotations))
        category_ids = sorted(truth.getCatIds())
        found = [
            {"image_id": int(image_id), "category_id": category_ids[label - 1], "bbox": [x0, y0, x1 - x0, y1 - y0]}
            | {"score": score}
            for image_id, result in detections.items()
            for (x0, y0, x1, y1), score, label in zip(
                result.boxes.tolist(), result.scores.tolist(), result.labels.tolist(), strict=True
            )
        ]
        if not found:
            return dict.fromkeys(NAMES, 0.0)
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: 100 * float(value) for name, value in zip(NAMES, evaluation.stats, strict=False)}


def _annotation_file(data: Path, split: str) -> Path:
    return data / "annotations" / f"instances_{split}.json"


def _read_split(data: Path, split: str) -> tuple[list[AnnotatedImage], dict[int, str]]:
    """All images, by id, and the categories by id; labels follow the order of the category ids, as in detectron2."""
    path = _annotation_file(data, split)
    if not path.is_file():
        raise UserError(f"no annotations {path}; expected COCO's layout: annotations/instances_SPLIT.json and SPLIT/")
    try:
        content = json.loads(path.read_bytes())
        categories = {int(c["id"]): str(c["name"]) for c in sorted(content["categories"], key=lambda c: c["id"])}
        objects = defaultdict(list)
        for item in content["annotations"]:
            objects[item["image_id"]].append(item)
        labels = {category: label for label, category in enumerate(categories, start=1)}
        images = [
            _image(data / split, item, objects[item["id"]], labels, path)
            for item in sorted(content["images"], key=lambda item: item["id"])
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not a COCO instances file ({type(error).__name__}: {error})") from error
    if not images or not categories:
        raise UserError(f"{path} has {len(images)} images and {len(categories)} categories; expected some of each")
    return images, categories


def _image(
    folder: Path, item: dict[str, Any], objects: list[dict[str, Any]], labels: dict[int, int], listed_in: Path
) -> AnnotatedImage:
    """One image of the JSON file with its objects."""
    corners = [[float(side) for side in found["bbox"]] for found in objects]
    if not all(len(box) == 4 and all(map(math.isfinite, box)) for box in corners):
        raise ValueError(f"image {item['id']} has a bbox that is not four finite numbers")
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in corners], np.float32).reshape(-1, 4)
    width, height = int(item["width"]), int(item["height"])
    if width <= 0 or height <= 0:
        raise ValueError(f"image {item['id']} is {width}x{height}")
    return AnnotatedImage(
        str(int(item["id"])),
        file_inside(folder, str(item["file_name"]), listed_in),
        width,
        height,
        boxes,
        np.array([labels[found["category_id"]] for found in objects], np.int64),
        np.array([bool(found.get("iscrowd", 0)) for found in objects], bool),
    )
