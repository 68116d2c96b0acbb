"""What a detection data set is to the rest: images with boxes and class names; and what is wrong with one."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from downstream.common.pictures import checked, decoded_size, picture_size
from pixpro.errors import UserError


@dataclass(frozen=True)
class AnnotatedImage:
    """One image file and its objects.

    boxes: (n, 4) float32, x0 y0 x1 y1 in pixels with the image's corner at 0; labels: (n,) int64 from 1;
    ignored: (n,) bool, objects that no score counts (VOC: difficult, COCO: crowd). masks: a run-length code of
    pycocotools for each object, where masks are trained.
    """

    image_id: str
    path: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    masks: tuple[dict[str, Any], ...] = ()

    @property
    def wide(self) -> bool:
        """Whether it is wider than high: such images share batches, and so do the others."""
        return self.width > self.height

    def require_size(self, width: int, height: int) -> None:
        """UserError unless the picture's size is the annotation's."""
        if (width, height) != (self.width, self.height):
            raise UserError(
                f"{self.path} is {width}x{height}, its annotation says {self.width}x{self.height}; repair one of them"
            )

    def only(self, wanted: np.ndarray) -> "AnnotatedImage":
        """The same image with some of its objects; wanted: (n,) bool."""
        masks = tuple(mask for mask, keep in zip(self.masks, wanted, strict=True) if keep) if self.masks else ()
        kept = {name: getattr(self, name)[wanted] for name in ("boxes", "labels", "ignored")}
        return replace(self, **kept, masks=masks)

    def visible(self) -> np.ndarray:
        """(n,) bool: the boxes that have an area inside the image."""
        x0, y0, x1, y1 = self.boxes.T
        return (np.minimum(x1, self.width) > np.maximum(x0, 0)) & (np.minimum(y1, self.height) > np.maximum(y0, 0))


@dataclass(frozen=True)
class DetectionSet:
    """Images to train on, images to test on, and the names of classes 1, 2, ...

    notes: what is unusual about the data and was decided, a line each. truth: COCO's JSON of the test images with
    every field that the scoring needs, image_id as in AnnotatedImage and categories numbered like the classes; None in
    VOC's layout.
    """

    train: list[AnnotatedImage]
    test: list[AnnotatedImage]
    class_names: list[str]
    notes: tuple[str, ...] = ()
    truth: dict[str, Any] | None = None


def trainable(images: list[AnnotatedImage], where: str) -> list[AnnotatedImage]:
    """Those images that have a box with an area inside the image; UserError when there are none."""
    kept = [image.only(image.visible()) for image in images if image.visible().any()]
    if not kept:
        raise UserError(f"{where}: none of its {len(images)} images has an object to train on")
    return kept


def check_set(data: DetectionSet) -> list[str]:
    """A line for each thing that makes the score mean less; UserError for what would stop the run on its way.

    The pictures of the test are decoded, those of the training are held to their size by their headers.
    """
    scored = np.concatenate([image.labels[~image.ignored] for image in data.test])
    counted = np.bincount(scored, minlength=len(data.class_names) + 1)[1:]
    if not counted.any():
        raise UserError(
            f"none of the {len(data.test)} test images has an object that counts (not difficult, not a crowd): "
            "there would be nothing to score"
        )
    checked(data.train, lambda image: image.require_size(*picture_size(image.path)), by_all_cores=True)
    checked(data.test, lambda image: image.require_size(*decoded_size(image.path)), by_all_cores=True)
    return [*data.notes, *_notes(data, counted)]


def _notes(data: DetectionSet, counted: np.ndarray) -> Iterable[str]:
    absent = [name for name, count in zip(data.class_names, counted, strict=True) if not count]
    if absent:
        effect = "their AP counts as 0 in the mean, as in detectron2" if data.truth is None else "they have no AP"
        yield f"the test has no object of {len(absent)} classes ({_some(absent)}): {effect}"
    trained = {label for image in data.train for label in image.labels.tolist()}
    unseen = [name for number, name in enumerate(data.class_names, start=1) if number not in trained]
    if unseen and data.train:
        yield f"the training has no object of {len(unseen)} classes ({_some(unseen)}): they cannot be learnt"
    hidden = sum(int((~image.visible() & ~image.ignored).sum()) for image in data.test)
    if hidden:
        yield f"{hidden} objects of the test lie outside their image or have no area: nothing can find them"
    shared = {image.path for image in data.train} & {image.path for image in data.test}
    if shared:
        yield f"{len(shared)} of the {len(data.test)} test images are trained on: the score says little"


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
