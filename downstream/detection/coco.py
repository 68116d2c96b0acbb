"""Folders in COCO's layout -> annotated images of two splits, labelled alike."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from downstream.common.pictures import checked, file_inside
from downstream.detection.annotated import AnnotatedImage, DetectionSet, trainable
from downstream.detection.coco_json import CocoFile, read_coco
from downstream.detection.coco_masks import encode_mask, without_mask
from downstream.detection.own_data import Part, coco_files
from pixpro.errors import UserError


class CocoSplit(NamedTuple):
    """A file in COCO's format and the folder with its images."""

    file: CocoFile
    folder: Path


class CocoPair(NamedTuple):
    """What is trained on (None: nothing) and tested on, the names of classes 1, 2, ..., and what there is to say."""

    train: CocoSplit | None
    test: CocoSplit
    class_names: list[str]
    notes: list[str]


def load_coco(
    data: Path,
    train_split: str | None,
    test_split: str,
    classes: Sequence[str] | None = None,
    part: Part | None = None,
    masks: bool = False,
) -> DetectionSet:
    """Images of two JSON files, those to train on with their masks if asked for; else as `read_pair` takes it."""
    return as_set(read_pair(data, train_split, test_split, classes, part), masks)


def read_pair(
    data: Path,
    train_split: str | None,
    test_split: str,
    classes: Sequence[str] | None = None,
    part: Part | None = None,
) -> CocoPair:
    """Two JSON files, each a split as `coco_files` takes it.

    classes: those to use, in this order; default: the training split's, by id. Labels go by the names: the two
    files may number their categories differently. train_split: None to test alone, with classes. part: of the
    training images.
    """
    train = None if train_split is None else read_split(data, train_split)
    test, notes = read_split(data, test_split), []
    if train and part:
        whole = len(train.file.images)
        train = train._replace(file=only_images(train.file, part.chosen(whole)))
        notes.append(part.note(len(train.file.images), whole))
    files = [split.file for split in (train, test) if split]
    class_names, left_out = choose_classes(files, classes)
    repaired = [note for file in files for note in file.notes]
    return CocoPair(train, test, class_names, [*repaired, *notes, *left_out])


def choose_classes(files: list[CocoFile], classes: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The names of classes 1, 2, ..., and the note on those that are left out."""
    train, test = files[0], files[-1]
    class_names = list(classes) if classes else [item["name"] for item in train.categories]
    left_out = [name for file in files for name in names_used(file) if name not in class_names]
    if left_out and classes is None:
        raise UserError(
            f"{train.path} and {test.path} have different categories: the first lacks {left_out[0]!r}; "
            "--classes FILE names the classes to use"
        )
    others = sorted(set(left_out))
    told = f"objects of {len(others)} other classes are left out ({', '.join(others[:5])})"
    return class_names, [told] if others else []


def as_set(pair: CocoPair, masks: bool = False) -> DetectionSet:
    """The two splits as annotated images; crowds are not trained on. masks: whether those of the training are read."""
    numbers = {name: number for number, name in enumerate(pair.class_names, start=1)}
    train = []
    if pair.train is not None:
        train = [image.only(~image.ignored) for image in annotated(pair.train, numbers, masks)]
        train = trainable(train, str(pair.train.file.path))
    test, truth = annotated(pair.test, numbers), renumbered(pair.test.file, numbers)
    return DetectionSet(train, test, pair.class_names, tuple(pair.notes), truth)


def read_split(data: Path, split: str) -> CocoSplit:
    """The file of a split, and the first of the folders in which its first image is."""
    path, folders = coco_files(data, split)
    file = read_coco(path)
    name = file.images[0]["file_name"]
    return CocoSplit(file, next((folder for folder in folders if os.path.isfile(folder / name)), folders[0]))


def only_images(file: CocoFile, chosen: list[int]) -> CocoFile:
    """The file with these of its images, by their place, and their annotations."""
    images = [file.images[index] for index in chosen]
    kept = {image["id"] for image in images}
    return replace(file, images=images, annotations=[a for a in file.annotations if a["image_id"] in kept])


def names_used(file: CocoFile) -> list[str]:
    """The names of the categories that have an object."""
    used = {item["category_id"] for item in file.annotations}
    return [item["name"] for item in file.categories if item["id"] in used]


def annotated(split: CocoSplit, numbers: dict[str, int], masks: bool = False) -> list[AnnotatedImage]:
    """All images of a split, by id, with the objects of the numbered classes, and with their masks if asked for."""
    file, folder = split
    if masks:
        bad = next(iter(without_mask(file.images, [a for a in file.annotations if not a["iscrowd"]])), None)
        if bad:
            raise UserError(
                f"{file.path}: annotation {bad[0]['id']} has no mask that can be trained on ({bad[1]}); mend it, or "
                "train boxes alone with --no-masks"
            )
    labels = {item["id"]: numbers.get(item["name"], 0) for item in file.categories}
    objects = defaultdict(list)
    for item in file.annotations:
        if labels[item["category_id"]]:
            objects[item["image_id"]].append(item)
    paths = checked(file.images, lambda item: file_inside(folder, item["file_name"], file.path))
    images = []
    for item, path in zip(file.images, paths, strict=True):
        found, width, height = objects[item["id"]], item["width"], item["height"]
        corners = [(x, y, x + w, y + h) for x, y, w, h in (entry["bbox"] for entry in found)]
        images.append(
            AnnotatedImage(
                str(item["id"]),
                path,
                width,
                height,
                np.array(corners, np.float32).reshape(-1, 4),
                np.array([labels[entry["category_id"]] for entry in found], np.int64),
                np.array([bool(entry["iscrowd"]) for entry in found], bool),
                tuple(encode_mask(entry["segmentation"], height, width) for entry in found if masks),
            )
        )
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
