"""Folders in COCO's layout -> annotated images of two splits, labelled alike."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from downstream.common.pictures import raise_first
from downstream.common.split_files import file_inside
from downstream.detection.annotated import AnnotatedImage, DetectionSet, trainable
from downstream.detection.coco_json import CocoFile, read_coco
from pixpro.errors import UserError


def load_coco(data: Path, train_split: str, test_split: str, classes: Sequence[str] | None = None) -> DetectionSet:
    """Images of data/annotations/instances_SPLIT.json and data/SPLIT; crowds are not trained on.

    classes: those to use, in this order; default: the training split's, by id. Labels go by the names: the two
    files may number their categories differently.
    """
    train, test = read_coco(annotation_file(data, train_split)), read_coco(annotation_file(data, test_split))
    notes = [*train.notes, *test.notes]
    class_names = list(classes) if classes else [item["name"] for item in train.categories]
    numbers = {name: number for number, name in enumerate(class_names, start=1)}
    left_out = [name for file in (train, test) for name in names_used(file) if name not in numbers]
    if left_out and classes is None:
        raise UserError(
            f"{train.path} and {test.path} have different categories: the first lacks {left_out[0]!r}; "
            "--classes FILE names the classes to use"
        )
    if left_out:
        notes.append(
            f"objects of {len(set(left_out))} other classes are left out ({', '.join(sorted(set(left_out))[:5])})"
        )
    train_images = [image.only(~image.ignored) for image in annotated(train, data / train_split, numbers)]
    test_images = annotated(test, data / test_split, numbers)
    truth = renumbered(test, numbers)
    return DetectionSet(trainable(train_images, train_split), test_images, class_names, tuple(notes), truth)


def annotation_file(data: Path, split: str) -> Path:
    """The JSON file of a split; UserError when there is none."""
    path = data / "annotations" / f"instances_{split}.json"
    if not path.is_file():
        raise UserError(f"no annotations {path}; expected COCO's layout: annotations/instances_SPLIT.json and SPLIT/")
    return path


def names_used(file: CocoFile) -> list[str]:
    """The names of the categories that have an object."""
    used = {item["category_id"] for item in file.annotations}
    return [item["name"] for item in file.categories if item["id"] in used]


def annotated(file: CocoFile, folder: Path, numbers: dict[str, int]) -> list[AnnotatedImage]:
    """All images of a file, by id, with the objects of the numbered classes."""
    labels = {item["id"]: numbers.get(item["name"], 0) for item in file.categories}
    objects = defaultdict(list)
    for item in file.annotations:
        if labels[item["category_id"]]:
            objects[item["image_id"]].append(item)
    images, complaints = [], []
    for item in file.images:
        try:
            path = file_inside(folder, item["file_name"], file.path)
        except UserError as error:
            complaints.append(error)
            continue
        found = objects[item["id"]]
        corners = [(x, y, x + width, y + height) for x, y, width, height in (entry["bbox"] for entry in found)]
        images.append(
            AnnotatedImage(
                str(item["id"]),
                path,
                item["width"],
                item["height"],
                np.array(corners, np.float32).reshape(-1, 4),
                np.array([labels[entry["category_id"]] for entry in found], np.int64),
                np.array([bool(entry["iscrowd"]) for entry in found], bool),
            )
        )
    raise_first(complaints)
    return images


def renumbered(file: CocoFile, numbers: dict[str, int]) -> dict[str, Any]:
    """The file's content with the numbered classes alone, their ids being the numbers."""
    names = {item["id"]: item["name"] for item in file.categories}
    kept = [item for item in file.annotations if names[item["category_id"]] in numbers]
    return {
        "images": file.images,
        "annotations": [item | {"category_id": numbers[names[item["category_id"]]]} for item in kept],
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
    }
