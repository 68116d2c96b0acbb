"""Class names of VOC- and COCO-layout data that are not VOC and COCO, and how detectron2 gets to know them."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path

from downstream.finetuning.paths import COCO_NAMES, VOC_NAMES
from pixpro.errors import UserError


def own_classes(root: Path, names: Iterable[str]) -> tuple[str, ...] | None:
    """The class names of VOC- or COCO-layout data that are not VOC or COCO; None where they are.

    Raises UserError where the data sets named do not agree on them.
    """
    names = tuple(names)
    if all(name in VOC_NAMES for name in names):
        return own_voc_classes(root, names)
    if all(name in COCO_NAMES for name in names):
        return own_coco_classes(root, names)
    return None


def own_voc_classes(root: Path, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Sorted class names in the annotations of the splits; None for the real VOC, known by its per-class lists."""
    if all(
        (root / VOC_NAMES[name][0] / "ImageSets/Main" / f"person_{VOC_NAMES[name][1]}.txt").exists() for name in names
    ):
        return None
    classes: set[str] = set()
    for folder, split in dict.fromkeys(VOC_NAMES[name] for name in names):
        identifiers = (root / folder / f"ImageSets/Main/{split}.txt").read_text().split()
        if len(identifiers) < 2:
            raise UserError(
                f"{root / folder} lists {len(identifiers)} images in {split}.txt; detectron2 needs at least 2"
            )
        for identifier in identifiers:
            file = root / folder / "Annotations" / f"{identifier}.xml"
            try:
                objects = ElementTree.parse(file).findall("object/name")
            except (OSError, ElementTree.ParseError) as error:
                raise UserError(f"cannot read the annotation {file}: {error}") from error
            classes.update(entry.text or "" for entry in objects)
    return tuple(sorted(classes))


def own_coco_classes(root: Path, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Class names in the order of their ids, from the annotation files; None for COCO's 80."""
    found: dict[Path, tuple[str, ...]] = {}
    # Small files first: the real COCO is known by its validation file, without reading 450 MB.
    files = {root / f"coco/annotations/instances_{COCO_NAMES[name]}.json" for name in names}
    for file in sorted(files, key=lambda path: path.stat().st_size):
        try:
            categories = json.loads(file.read_text())["categories"]
            found[file] = tuple(entry["name"] for entry in sorted(categories, key=lambda entry: entry["id"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"cannot read the annotations {file}: {error!r}") from error
        if len(found[file]) == 80:
            return None
        if len(set(found.values())) > 1:
            raise UserError(f"the annotation files name different classes: {', '.join(map(str, found))}")
    return next(iter(found.values()))


def register_classes(root: Path, names: Iterable[str], classes: tuple[str, ...]) -> None:
    """Make detectron2 read the data sets of these names with these classes instead of VOC's or COCO's."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_coco_instances, register_pascal_voc

    for name in dict.fromkeys(names):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
        if name in VOC_NAMES:
            folder, split = VOC_NAMES[name]
            register_pascal_voc(name, str(root / folder), split, 2007 if "2007" in name else 2012, classes)
            MetadataCatalog.get(name).evaluator_type = "pascal_voc"
        else:
            folder = COCO_NAMES[name]
            annotations = root / f"coco/annotations/instances_{folder}.json"
            register_coco_instances(name, {}, str(annotations), str(root / "coco" / folder))
