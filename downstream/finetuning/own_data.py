"""Data sets of one's own in VOC's or COCO's layout: found, checked, and made known to detectron2."""

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from downstream.common.program import write_json
from downstream.detection.annotated import AnnotatedImage, DetectionSet, check_set
from downstream.detection.coco import as_set, read_pair, renumbered
from downstream.detection.coco_masks import without_mask
from downstream.detection.own_data import Part, default_splits
from downstream.detection.voc import load_voc
from downstream.finetuning.paths import COCO_NAMES, VOC_NAMES
from pixpro.errors import UserError

COCO_IDS = {*range(1, 91)} - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # of COCO's 80 categories
KEYS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")  # what detectron2 takes


@dataclass(frozen=True)
class OwnData:
    """What every process tells detectron2: names, images and classes; in COCO's layout the content of its files."""

    train: str
    test: str
    images: DetectionSet
    notes: list[str]
    contents: dict[str, dict] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)

    @property
    def has_codes(self) -> bool:
        """Whether a mask to train on is a run-length code, which detectron2 takes as a bitmap only."""
        content = self.contents.get(self.train, {"annotations": []})
        return any(isinstance(item.get("segmentation"), dict) for item in content["annotations"])


def find_own_data(
    args: argparse.Namespace, root: Path, train: tuple[str, ...], test: tuple[str, ...]
) -> OwnData | None:
    """The data of --data, or of detectron2's names below root where they are not VOC and COCO themselves.

    None for the benchmarks as they are, and for names that this project does not know. train, test: detectron2's names.
    """
    part = Part(args.fraction, args.fraction_seed) if args.fraction else None
    if args.data is not None:
        if not args.data.is_dir():
            raise UserError(f"no folder {args.data}; --data expects a data set in {args.layout.upper()}'s layout")
        splits = default_splits(args.data, args.layout, args.train_split, args.test_split)
        return load(args.layout, args.data, splits[0], splits[1], args.classes, part, splits[2])
    if args.train_split or args.test_split:
        raise UserError("--train-split and --test-split name splits of --data; without it DATASETS.TRAIN and TEST do")
    benchmark = is_benchmark(root, (*train, *test))
    if benchmark is None and (args.classes or part):
        raise UserError(f"--classes and --fraction do not know {', '.join((*train, *test))}; name a folder with --data")
    if benchmark is None or (benchmark and not args.classes and part is None):
        return None
    if len(test) != 1:
        raise UserError(f"DATASETS.TEST names {len(test)} sets; data of one's own is tested on one")
    if test[0] in VOC_NAMES:
        return load("voc", root, "+".join(train), test[0], args.classes, part, [])
    if len(train) != 1:
        raise UserError(f"DATASETS.TRAIN names {len(train)} sets; in COCO's layout one is trained on")
    return load("coco", root / "coco", COCO_NAMES[train[0]], COCO_NAMES[test[0]], args.classes, part, [])


def is_benchmark(root: Path, names: Iterable[str]) -> bool | None:
    """Whether the data sets of these names below root are VOC or COCO themselves; None for names of other data sets.

    VOC is known by its lists of the classes, COCO by the category ids of its smallest file: the largest has 450 MB.
    """
    names = tuple(names)
    if all(name in VOC_NAMES for name in names):
        sets = (VOC_NAMES[name] for name in names)
        return all((root / folder / "ImageSets/Main" / f"person_{split}.txt").exists() for folder, split in sets)
    if all(name in COCO_NAMES for name in names):
        files = {root / f"coco/annotations/instances_{COCO_NAMES[name]}.json" for name in names}
        smallest = min(files, key=lambda path: path.stat().st_size)
        try:
            return {entry["id"] for entry in json.loads(smallest.read_bytes())["categories"]} == COCO_IDS
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"cannot read the annotations {smallest}: {error!r}") from error
    return None


def check_benchmark(root: Path, train: tuple[str, ...], test: tuple[str, ...]) -> list[str]:
    """What there is to say about VOC or COCO itself; UserError for files that are missing or damaged.

    COCO's training file is left to detectron2: it takes a minute to read.
    """
    if test[0] in VOC_NAMES:
        return [note for name in test for note in check_set(load_voc(root, "+".join(train), name))]
    pairs = (read_pair(root / "coco", None, COCO_NAMES[name]) for name in test)
    return [note for pair in pairs for note in check_set(as_set(pair))]


def load(
    layout: str, data: Path, train: str, test: str, classes: list[str] | None, part: Part | None, notes: list[str]
) -> OwnData:
    """Both splits, with everything checked that training and scoring will need."""
    names = (f"{data.name}:{train}", f"{data.name}:{test} (test)")
    if layout == "voc":
        images = load_voc(data, train, test, classes, part)
        return OwnData(*names, images, [*notes, *check_set(images)])
    pair = read_pair(data, train, test, classes, part)
    images = as_set(pair)
    numbers = {name: number for number, name in enumerate(pair.class_names, start=1)}
    splits = dict(zip(names, (pair.train, pair.test), strict=True))
    contents = {name: with_known_keys(renumbered(split.file, numbers)) for name, split in splits.items()}
    folders = {name: split.folder for name, split in splits.items()}
    return OwnData(*names, images, [*notes, *check_set(images)], contents, folders)


def with_known_keys(content: dict[str, Any]) -> dict[str, Any]:
    """The content with those fields of its annotations that detectron2 takes; others (`ignore`) make it stumble."""
    annotations = [{key: item[key] for key in KEYS if key in item} for item in content["annotations"]]
    return content | {"annotations": annotations}


def check_masks(own: OwnData) -> None:
    """UserError unless every object in COCO's layout has a mask that can be trained on and scored."""
    for name, content in own.contents.items():
        missing = list(without_mask(content["images"], content["annotations"]))
        if missing:
            item, reason = missing[0]
            raise UserError(
                f"{len(missing)} of {len(content['annotations'])} objects of {name} have no usable mask, first one of "
                f"image {item['image_id']}: {reason}; add MODEL.MASK_ON False for boxes alone"
            )


def write_files(own: OwnData, folder: Path) -> dict[str, Path]:
    """The contents as JSON files in the folder, by name of the data set."""
    paths = {}
    for name, kind in ((own.train, "train"), (own.test, "test")):
        if name in own.contents:
            folder.mkdir(parents=True, exist_ok=True)
            paths[name] = folder / f"{kind}.json"
            write_json(paths[name], own.contents[name])
    return paths


def register(own: OwnData, files: dict[str, Path]) -> None:
    """Make detectron2 know both sets, in this process; once is enough, twice does no harm."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_coco_instances

    for name, images in ((own.train, own.images.train), (own.test, own.images.test)):
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        if name in files:
            register_coco_instances(name, {}, str(files[name]), str(own.folders[name]))
        else:
            DatasetCatalog.register(name, lambda images=images: [as_record(image) for image in images])
            facts = {"thing_classes": list(own.images.class_names), "images": own.images}
            MetadataCatalog.get(name).set(**facts, evaluator_type="own_voc")


def as_record(image: AnnotatedImage) -> dict[str, Any]:
    """An image as detectron2's loaders give it."""
    from detectron2.structures import BoxMode

    objects = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": label - 1}
        for box, label in zip(image.boxes.tolist(), image.labels.tolist(), strict=True)
    ]
    facts = {"file_name": str(image.path), "image_id": image.image_id, "height": image.height, "width": image.width}
    return facts | {"annotations": objects}
