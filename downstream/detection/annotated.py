"""What a detection data set is to the rest: a list of images with boxes; shared by the readers of VOC and COCO."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixpro.errors import UserError


@dataclass(frozen=True)
class AnnotatedImage:
    """One image file and its objects.

    boxes: (n, 4) float32, x0 y0 x1 y1 in pixels with the image's corner at 0; labels: (n,) int64 from 1;
    ignored: (n,) bool, objects that no score counts (VOC: difficult, COCO: crowd).
    """

    image_id: str
    path: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray

    def only(self, wanted: np.ndarray) -> "AnnotatedImage":
        """The same image with some of its objects; wanted: (n,) bool."""
        kept = (self.boxes[wanted], self.labels[wanted], self.ignored[wanted])
        return AnnotatedImage(self.image_id, self.path, self.width, self.height, *kept)


@dataclass(frozen=True)
class DetectionSet:
    """Images to train on, images to test on, and the names of classes 1, 2, ...

    annotations: COCO's JSON file of the test images, None in VOC's layout.
    """

    train: list[AnnotatedImage]
    test: list[AnnotatedImage]
    class_names: list[str]
    annotations: Path | None = None


def trainable(images: list[AnnotatedImage], where: str) -> list[AnnotatedImage]:
    """Those images that have a box with an area inside the image; UserError when there are none."""
    kept = []
    for image in images:
        x0, y0, x1, y1 = image.boxes.T
        filled = (np.minimum(x1, image.width) > np.maximum(x0, 0)) & (np.minimum(y1, image.height) > np.maximum(y0, 0))
        if filled.any():
            kept.append(image.only(filled))
    if not kept:
        raise UserError(f"{where}: none of its {len(images)} images has an object to train on")
    return kept


def file_inside(folder: Path, name: str, listed_in: Path) -> Path:
    """folder / name, when that is an existing file inside folder; UserError names the file that lists it."""
    path = folder / name
    if "\0" in name or not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{listed_in} names {name[:99]!r}, which lies outside {folder}; expected a name inside it")
    if not os.path.isfile(path):  # False also for names that no file system takes, where Path.is_file raises
        raise UserError(f"{listed_in} names {name[:99]!r}, but there is no file of that name in {folder}")
    return path
