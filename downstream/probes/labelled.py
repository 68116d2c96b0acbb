"""Folders with labels -> lists of files: classes as folders, masks in VOC's or Cityscapes' layout."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor, from_numpy

from pixpro.errors import UserError
from pixpro.images.kinds import is_image

VOID = 255
Labelled = tuple[Path, int]  # an image file and its class
# labelIds of Cityscapes -> the 19 classes of its benchmark, in the benchmark's order
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


@dataclass(frozen=True)
class ClassSet:
    """Image files and the class of each, for training and for testing."""

    train: list[Labelled]
    test: list[Labelled]  # empty: to be split off the training images
    names: list[str]


@dataclass(frozen=True)
class MaskSet:
    """Image files and their masks, for training and for testing."""

    train: list[tuple[Path, Path]]
    test: list[tuple[Path, Path]]
    layout: str  # "voc" or "cityscapes"


def image_files(folder: Path) -> list[Path]:
    """All image files below the folder, sorted; UserError when there are none."""
    found = sorted(p for p in folder.rglob("*") if is_image(os.fsencode(p.name)) and p.is_file())
    if not found:
        raise UserError(f"{folder} holds no images" if folder.is_dir() else f"{folder} is not a folder of images")
    return found


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _labelled(folder: Path, names: list[str]) -> list[Labelled]:
    files = []
    for label, name in enumerate(names):
        if (folder / name).is_dir():  # tests may lack a class
            files += [(path, label) for path in image_files(folder / name)]
    return files


def class_folders(folder: Path) -> ClassSet:
    """folder/CLASS/..., or folder/train/CLASS/... with folder/val/CLASS/... (or test/)."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; expected one folder for each class in it")
    train = folder / "train" if (folder / "train").is_dir() else folder
    test = next((folder / name for name in ("val", "test") if train != folder and (folder / name).is_dir()), None)
    names = [path.name for path in _folders(train)]
    files = _labelled(train, names)
    if len(names) < 2 or len({label for _, label in files}) < 2:
        raise UserError(f"{train} has {len(names)} folders with images; expected one for each of at least 2 classes")
    if test is None:
        return ClassSet(files, [], names)
    unknown = sorted({path.name for path in _folders(test)} - set(names))
    if unknown:
        raise UserError(f"{test} has the class {unknown[0]!r}, which {train} lacks")
    tests = _labelled(test, names)
    if not tests:
        raise UserError(f"{test} has no images in the folders of its classes")
    return ClassSet(files, tests, names)


def mask_folder(folder: Path) -> MaskSet:
    """A folder in VOC's layout (ImageSets/Segmentation, ...) or Cityscapes' (leftImg8bit and gtFine).

    VOC: trained on trainval and tested on test where test has masks, else on train and val.
    """
    if (folder / "gtFine").is_dir() and (folder / "leftImg8bit").is_dir():
        return MaskSet(_cityscapes(folder, "train"), _cityscapes(folder, "val"), "cityscapes")
    splits = folder / "ImageSets" / "Segmentation"
    if not splits.is_dir():
        raise UserError(f"{folder} has neither ImageSets/Segmentation (VOC) nor leftImg8bit and gtFine (Cityscapes)")
    test = _voc(folder, "test") if (splits / "test.txt").is_file() else []
    if test and all(mask.is_file() for _, mask in test):
        return MaskSet(_existing(_voc(folder, "trainval")), _existing(test), "voc")
    return MaskSet(_existing(_voc(folder, "train")), _existing(_voc(folder, "val")), "voc")


def _voc(folder: Path, split: str) -> list[tuple[Path, Path]]:
    listing = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not listing.is_file():
        raise UserError(f"no split file {listing}")
    names = listing.read_text(errors="replace").split()
    for name in names:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise UserError(f"{listing} has the entry {name[:60]!r}; expected one image name per line")
    return [(folder / "JPEGImages" / f"{n}.jpg", folder / "SegmentationClass" / f"{n}.png") for n in names]


def _cityscapes(folder: Path, split: str) -> list[tuple[Path, Path]]:
    pairs = []
    for image in sorted((folder / "leftImg8bit" / split).glob("*/*_leftImg8bit.png")):
        stem = image.name.removesuffix("_leftImg8bit.png")
        masks = [
            folder / "gtFine" / split / image.parent.name / f"{stem}_gtFine_label{k}.png" for k in ("TrainIds", "Ids")
        ]
        pairs.append((image, masks[0] if masks[0].is_file() else masks[1]))
    if not pairs:
        raise UserError(f"no images {folder}/leftImg8bit/{split}/CITY/*_leftImg8bit.png")
    return _existing(pairs)


def _existing(pairs: list[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    missing = [path for pair in pairs for path in pair if not path.is_file()]
    if missing or not pairs:
        raise UserError(
            f"{len(missing)} listed files are missing, first {missing[0]}" if missing else "no masks listed"
        )
    return pairs


def read_mask(path: Path) -> Tensor:
    """Classes (H, W) int64 of a mask, 255 for pixels that do not count; UserError for other kinds of images."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode not in ("P", "L"):
                raise UserError(f"{path} is not a mask: expected one value per pixel, found mode {image.mode}")
            values = np.asarray(image)
    except UserError:
        raise
    except Exception as error:  # Pillow raises almost anything for damaged data
        raise UserError(f"{path}: cannot be read as a mask ({type(error).__name__}); repair or remove it") from error
    if path.name.endswith("_labelIds.png"):
        table = np.full(256, VOID, np.uint8)
        table[list(CITYSCAPES_IDS)] = np.arange(len(CITYSCAPES_IDS))
        values = table[values]
    return from_numpy(values.astype(np.int64))
