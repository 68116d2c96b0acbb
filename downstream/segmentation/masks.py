"""Folders in VOC 2012's or Cityscapes' layout -> pairs of image and mask files -> values of masks; untrusted input."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from downstream.common.pictures import checked, picture_inside, read_split
from pixpro.errors import UserError
from pixpro.images.decoding import MAX_PIXELS
from pixpro.scenes.files import voc_palette

VOID = 255  # pixels that neither train nor count
# labelIds of Cityscapes that are scored, in the order of classes 0 to 18; every other id is void.
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES_NAMES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
# Class of every value of a labelIds file.
CITYSCAPES = np.full(256, VOID)
CITYSCAPES[list(CITYSCAPES_IDS)] = np.arange(len(CITYSCAPES_IDS))

PALETTE = np.array(voc_palette(), np.uint8).reshape(256, 3)  # VOC's colour of every value


def read_mask(path: Path) -> np.ndarray:
    """(H, W) uint8: the values of a mask, those of Cityscapes' labelIds as its 19 classes and void."""
    try:
        with Image.open(io.BytesIO(path.read_bytes()), formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS or image.mode not in ("P", "L", "1"):
                raise ValueError(f"{image.width}x{image.height}, mode {image.mode}")
            values = np.array(image).astype(np.uint8)
    except Exception as error:  # Pillow raises almost anything for damaged data
        reason = "not a PNG" if isinstance(error, Image.UnidentifiedImageError) else error
        raise UserError(f"{path} is no mask: expected a PNG of one byte per pixel ({reason})") from error
    return CITYSCAPES[values].astype(np.uint8) if path.name.endswith("_labelIds.png") else values


@dataclass(frozen=True)
class MaskedImage:
    """An image file and its mask file; name: what to call them."""

    name: str
    image: Path
    mask: Path


def voc_pairs(data: Path, split: str) -> list[MaskedImage]:
    """A split of ImageSets/Segmentation: SPLIT of data itself, or FOLDER/SPLIT of data/FOLDER."""
    folder, _, name = split.rpartition("/")
    root = data / folder
    listing = root / "ImageSets" / "Segmentation" / f"{name}.txt"

    def find(image_id: str) -> MaskedImage:
        image = picture_inside(root / "JPEGImages", image_id, listing)
        mask = picture_inside(root / "SegmentationClass", image_id, listing, (".png", ".PNG"))
        return MaskedImage(image_id, image, mask)

    return checked(read_split(listing, "ImageSets/Segmentation, JPEGImages, SegmentationClass"), find)


def cityscapes_pairs(data: Path, split: str) -> list[MaskedImage]:
    """leftImg8bit/SPLIT/CITY/*_leftImg8bit.png with gtFine/SPLIT/CITY/*_gtFine_labelTrainIds.png or _labelIds.png."""
    folder = data / "leftImg8bit" / split
    images = sorted(folder.glob("*/*_leftImg8bit.png"))
    if not images:
        raise UserError(f"no images {folder}/CITY/*_leftImg8bit.png; expected Cityscapes' layout")
    pairs = []
    for image in images:
        name = image.name.removesuffix("_leftImg8bit.png")
        start = data / "gtFine" / split / image.parent.name / f"{name}_gtFine_label"
        masks = [start.with_name(f"{start.name}{kind}.png") for kind in ("TrainIds", "Ids")]
        found = next((mask for mask in masks if mask.is_file()), None)
        if found is None:
            raise UserError(f"{image} has no mask {masks[1]}")
        pairs.append(MaskedImage(name, image, found))
    return pairs
