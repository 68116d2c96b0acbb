"""What the end of a detection run will need, looked at before its first iteration: objects to find, readable images."""

from collections.abc import Iterable

import numpy as np

from downstream.common.pictures import checked, decoded_size, picture_size
from downstream.detection.annotated import AnnotatedImage, DetectionSet
from pixpro.errors import UserError


def check_set(data: DetectionSet) -> list[str]:
    """A line for each thing that makes the score mean less; UserError for what would stop the run on its way.

    The pictures of the test are decoded, those of the training are held to their size by their headers.
    """
    counted = sum(np.bincount(_counted(image), minlength=len(data.class_names) + 1) for image in data.test)[1:]
    if not counted.any():
        raise UserError(
            f"none of the {len(data.test)} test images has an object that counts (not difficult, not a crowd): "
            "there would be nothing to score"
        )
    checked(data.train, lambda image: image.require_size(*picture_size(image.path)))
    checked(data.test, lambda image: image.require_size(*decoded_size(image.path)))
    return [*data.notes, *_notes(data, counted)]


def _counted(image: AnnotatedImage) -> np.ndarray:
    """Labels of the objects that a score counts."""
    return image.labels[~image.ignored]


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
