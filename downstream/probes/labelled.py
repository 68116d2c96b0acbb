"""Folders with labels -> lists of files: classes as folders, masks in VOC's or Cityscapes' layout."""

from dataclasses import dataclass
from pathlib import Path

from downstream.common.pictures import image_files, read_split
from downstream.segmentation.masks import MaskedImage, cityscapes_pairs, voc_pairs
from pixpro.errors import UserError

Labelled = tuple[Path, int]  # an image file and its class


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
        return MaskSet(_files(cityscapes_pairs(folder, "train")), _files(cityscapes_pairs(folder, "val")), "cityscapes")
    splits = folder / "ImageSets" / "Segmentation"
    if not splits.is_dir():
        raise UserError(f"{folder} has neither ImageSets/Segmentation (VOC) nor leftImg8bit and gtFine (Cityscapes)")
    names = ("trainval", "test") if _tests_have_masks(folder, splits / "test.txt") else ("train", "val")
    return MaskSet(*(_files(voc_pairs(folder, name)) for name in names), "voc")


def _tests_have_masks(folder: Path, listing: Path) -> bool:
    """Whether there are test images with masks: VOC keeps those of its own test to itself."""
    if not listing.is_file():
        return False
    names = read_split(listing, "ImageSets/Segmentation")
    return all((folder / "SegmentationClass" / f"{name}.png").is_file() for name in names)


def _files(pairs: list[MaskedImage]) -> list[tuple[Path, Path]]:
    return [(pair.image, pair.mask) for pair in pairs]
