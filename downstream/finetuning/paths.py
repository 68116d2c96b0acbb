"""The data folder of a fine-tuning run: detectron2's names of its data sets, and what must be there for each."""

from collections.abc import Iterable
from pathlib import Path

VOC_NAMES = {
    f"voc_{year}_{split}": (f"VOC{year}", split)
    for year, splits in (("2007", ("train", "val", "trainval", "test")), ("2012", ("train", "val", "trainval")))
    for split in splits
}
COCO_NAMES = {f"coco_{year}_{split}": f"{split}{year}" for year in ("2014", "2017") for split in ("train", "val")}


def present(root: Path, names: Iterable[str]) -> tuple[str, ...]:
    """The names without VOC2012 where that folder is missing and VOC2007 holds data of one's own."""
    names = tuple(names)
    listing = root / "VOC2007/ImageSets/Main"
    alone = listing.is_dir() and not (root / "VOC2012").exists() and not (listing / "person_trainval.txt").exists()
    return tuple(name for name in names if not (alone and name.startswith("voc_2012")))


def missing_paths(root: Path, names: Iterable[str]) -> list[Path]:
    """The files and folders under root that detectron2's data sets of these names need and that are not there."""
    needed: list[Path] = []
    for name in names:
        if name in VOC_NAMES:
            folder, split = VOC_NAMES[name]
            needed += [root / folder / part for part in (f"ImageSets/Main/{split}.txt", "Annotations", "JPEGImages")]
        elif name in COCO_NAMES:
            folder = COCO_NAMES[name]
            needed += [root / "coco" / part for part in (f"annotations/instances_{folder}.json", folder)]
    return [path for path in dict.fromkeys(needed) if not path.exists()]
