"""Folders in Pascal VOC's layout -> annotated images of the splits, labelled by their classes."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from downstream.common.pictures import checked, file_inside, picture_inside, read_split
from downstream.detection.annotated import AnnotatedImage, DetectionSet, trainable
from downstream.detection.own_data import Part
from downstream.detection.voc_xml import VocAnnotation, read_annotation
from downstream.finetuning.paths import VOC_NAMES
from pixpro.errors import UserError

CLASS_NAMES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle"),
    *("bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]


def load_voc(
    data: Path,
    train_splits: str | None,
    test_split: str,
    classes: Sequence[str] | None = None,
    part: Part | None = None,
) -> DetectionSet:
    """The splits' images. Classes are the given ones, or those of the training split, in VOC's order or by name.

    train_splits: joined by `+`. A split is detectron2's name (voc_2007_trainval: data/VOC2007), or FOLDER/SPLIT
    for data/FOLDER, or SPLIT when data is itself the folder with Annotations and JPEGImages. classes: objects of
    others are left out, in the test too. train_splits: None to test alone, with classes. part: of the training images.
    """
    train = [found for split in train_splits.split("+") for found in _read_split(data, split)] if train_splits else []
    test, notes = _read_split(data, test_split), []
    names = {name for annotation in train for name in annotation.names}
    if part is not None:
        chosen = part.chosen(len(train))
        notes.append(part.note(len(chosen), len(train)))
        train = [train[index] for index in chosen]
    unsaid = sum(annotation.unsaid for annotation in train + test)
    if unsaid:
        notes.append(f"{unsaid} objects have an empty or unspecified <difficult>: they count as not difficult")
    if classes is None:
        class_names = [n for n in CLASS_NAMES if n in names] if names <= set(CLASS_NAMES) else sorted(names)
        for annotation in test:
            _refuse_unknown(annotation, class_names)
    else:
        class_names = list(classes)
        notes += _left_out(train + test, class_names)
    train_images, test_images = ([_labelled(found, class_names) for found in split] for split in (train, test))
    if train_splits:
        train_images = trainable(train_images, train_splits)
    return DetectionSet(train_images, test_images, class_names, tuple(notes))


def _read_split(data: Path, split: str) -> list[VocAnnotation]:
    """Every image of a split, in the file's order."""
    folder, _, name = split.rpartition("/")
    if split in VOC_NAMES:
        folder, name = VOC_NAMES[split]
    root = data / folder
    listing = root / "ImageSets" / "Main" / f"{name}.txt"

    def read(image_id: str) -> VocAnnotation:
        xml = file_inside(root / "Annotations", f"{image_id}.xml", listing)
        return read_annotation(xml, picture_inside(root / "JPEGImages", image_id, listing))

    return checked(read_split(listing, "ImageSets/Main, Annotations, JPEGImages"), read)


def _labelled(annotation: VocAnnotation, class_names: list[str]) -> AnnotatedImage:
    """The image with labels from 1, without the objects of other classes."""
    numbers = {name: number for number, name in enumerate(class_names, start=1)}
    labels = np.array([numbers.get(name, 0) for name in annotation.names], np.int64)
    return replace(annotation.image, labels=labels).only(labels > 0)


def _refuse_unknown(annotation: VocAnnotation, class_names: list[str]) -> None:
    """UserError for a class that the training split does not have."""
    unknown = [name for name in annotation.names if name not in class_names]
    if unknown:
        raise UserError(
            f"{annotation.image.path} shows a {unknown[0]!r}, a class that the training split does not have; "
            "--classes FILE names the classes to use"
        )


def _left_out(annotations: list[VocAnnotation], class_names: list[str]) -> Iterable[str]:
    """The note on objects of classes that were not asked for."""
    names = [name for annotation in annotations for name in annotation.names if name not in class_names]
    if names:
        told = ", ".join(sorted(set(names))[:5]) + (", ..." if len(set(names)) > 5 else "")
        yield f"{len(names)} objects of {len(set(names))} other classes are left out ({told})"
