"""Folders in VOC 2012's or Cityscapes' layout -> pairs of image and mask files, and what the mask's values mean."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from downstream.detection.annotated import file_inside
from pixpro.errors import UserError

# labelIds of Cityscapes that are scored, in the order of classes 0 to 18; every other id is void.
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES_NAMES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)


@dataclass(frozen=True)
class MaskedImage:
    """An image file and its mask file; name: what to call them."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class SegmentationSet:
    """Images to train on and to test on.

    classes: (256,) int64, the class of every value in a mask; 255 is void, -1 a value that must not occur.
    """

    train: list[MaskedImage]
    test: list[MaskedImage]
    num_classes: int
    classes: np.ndarray


def load_voc_masks(data: Path, train_split: str, test_split: str, num_classes: int | None) -> SegmentationSet:
    """Splits of ImageSets/Segmentation; each is SPLIT of data itself, or FOLDER/SPLIT of data/FOLDER."""
    count = num_classes or 21
    if count > 255:
        raise UserError(f"--num-classes {count}: a mask of one byte per pixel holds at most 255")
    classes = np.full(256, -1)
    classes[:count], classes[255] = np.arange(count), 255
    return SegmentationSet(_voc_split(data, train_split), _voc_split(data, test_split), count, classes)


def load_cityscapes(data: Path, train_split: str, test_split: str, num_classes: int | None) -> SegmentationSet:
    """leftImg8bit/SPLIT/CITY/*_leftImg8bit.png with gtFine/SPLIT/CITY/*_gtFine_labelIds.png."""
    if num_classes not in (None, len(CITYSCAPES_IDS)):
        raise UserError(f"--num-classes {num_classes}: Cityscapes' layout has {len(CITYSCAPES_IDS)}")
    classes = np.full(256, 255)
    classes[list(CITYSCAPES_IDS)] = np.arange(len(CITYSCAPES_IDS))
    parts = (_cityscapes_split(data, train_split), _cityscapes_split(data, test_split))
    return SegmentationSet(*parts, len(CITYSCAPES_IDS), classes)


def _voc_split(data: Path, split: str) -> list[MaskedImage]:
    folder, _, name = split.rpartition("/")
    root = data / folder
    listing = root / "ImageSets" / "Segmentation" / f"{name}.txt"
    if not listing.is_file():
        raise UserError(
            f"no split file {listing}; expected VOC's layout: ImageSets/Segmentation, JPEGImages, SegmentationClass"
        )
    ids = listing.read_text(errors="replace").split()
    wrong = [image_id for image_id in ids if not re.fullmatch(r"\w[\w.-]*", image_id)]
    if not ids or wrong:
        raise UserError(f"{listing} lists {repr(wrong[0][:60]) if wrong else 'nothing'}; expected image names")
    return [
        MaskedImage(
            image_id,
            file_inside(root / "JPEGImages", f"{image_id}.jpg", listing),
            file_inside(root / "SegmentationClass", f"{image_id}.png", listing),
        )
        for image_id in ids
    ]


def _cityscapes_split(data: Path, split: str) -> list[MaskedImage]:
    folder = data / "leftImg8bit" / split
    images = sorted(folder.glob("*/*_leftImg8bit.png"))
    if not images:
        raise UserError(f"no images {folder}/CITY/*_leftImg8bit.png; expected Cityscapes' layout")
    pairs = []
    for image in images:
        name = image.name.removesuffix("_leftImg8bit.png")
        mask = data / "gtFine" / split / image.parent.name / f"{name}_gtFine_labelIds.png"
        if not mask.is_file():
            raise UserError(f"{image} has no mask {mask}")
        pairs.append(MaskedImage(name, image, mask))
    return pairs
