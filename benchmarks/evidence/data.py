"""A tar of photographs -> the images to pre-train on, and the labels to score with, unpacked once."""

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

from downstream.common.pictures import image_files
from downstream.probes.labelled import ClassSet, MaskSet, class_folders, mask_folder
from pixpro.errors import UserError


@dataclass(frozen=True)
class Photographs:
    """A data set on disk; `images` is a folder of its training images alone, without labels."""

    name: str
    root: Path
    images: Path
    classes: ClassSet | None
    masks: MaskSet | None
    boxes: bool

    @property
    def count(self) -> int:
        """Training images."""
        return len(image_files(self.images))


def open_photographs(given: Path, place: Path) -> Photographs:
    """The data set of a tar file or of a folder; a tar is unpacked below `place`, where it stays.

    Known layouts: train/CLASS/* with test/CLASS/* (or val/), and VOC's, with masks or with boxes.
    """
    root = unpacked(given, place) if given.is_file() else given
    if not root.is_dir():
        raise UserError(f"{given}: no such tar file or folder; expected photographs with labels")
    splits = root / "ImageSets"
    if (splits / "Segmentation").is_dir():
        masks = mask_folder(root)
        images = linked([image for image, _ in masks.train], place / f"{root.name}-train")
        return Photographs(root.name, root, images, None, masks, False)
    if (splits / "Main").is_dir():
        names = (splits / "Main" / "trainval.txt").read_text().split()
        files = [root / "JPEGImages" / f"{name}.jpg" for name in names]
        return Photographs(root.name, root, linked(files, place / f"{root.name}-train"), None, None, True)
    classes = class_folders(root)
    if not classes.test:
        raise UserError(f"{given} has no images for testing; expected train/CLASS/... and test/CLASS/... in it")
    return Photographs(root.name, root, root / "train", classes, None, False)


def unpacked(tar: Path, place: Path) -> Path:
    """The one folder that a tar file holds, below `place`; written under another name until it is complete."""
    try:
        with tarfile.open(tar) as archive:
            tops = {Path(name).parts[0] for name in archive.getnames() if Path(name).parts}
            if len(tops) != 1:
                raise UserError(f"{tar} holds {len(tops)} folders at its top; expected one, the data set's")
            root = place / tops.pop()
            if not root.exists():
                part = place / f".{root.name}.part"
                archive.extractall(part, filter="data")
                joined(part / root.name / "ImageSets" / "Segmentation")
                os.replace(part / root.name, root)
    except tarfile.TarError as error:
        raise UserError(f"{tar} cannot be read as a tar file: {error}") from error
    return root


def joined(splits: Path) -> None:
    """Write trainval.txt where there are train.txt and val.txt alone: with a test set both are for training."""
    parts = [splits / "train.txt", splits / "val.txt"]
    if all(part.is_file() for part in parts) and not (splits / "trainval.txt").exists():
        names = [name for part in parts for name in part.read_text().split()]
        (splits / "trainval.txt").write_text("\n".join(names) + "\n")


def linked(files: list[Path], folder: Path) -> Path:
    """A folder with links to these files and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        link = folder / file.name
        if not link.exists():
            os.link(file, link)
    return folder
