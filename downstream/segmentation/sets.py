"""Folders in VOC 2012's or Cityscapes' layout -> pairs of image and mask files."""

from dataclasses import dataclass
from pathlib import Path

from downstream.common.pictures import checked
from downstream.common.split_files import picture_inside, read_split
from pixpro.errors import UserError


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
