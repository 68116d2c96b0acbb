"""Folders of one's own in VOC's or COCO's layout: which splits or JSON files are taken, and which part."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pixpro.errors import UserError

PUBLISHED = {"voc": ("voc_2007_trainval+voc_2012_trainval", "voc_2007_test"), "coco": ("train2017", "val2017")}
VOC_PAIRS = (("trainval", "test"), ("train", "test"), ("train", "val"), ("trainval", "val"))
COCO_TRAIN, COCO_TEST = ("train",), ("val", "test")  # in a JSON file's name, or else in its folder's
OTHER_TASKS = ("captions", "keypoints", "panoptic", "stuff")


def default_splits(data: Path, layout: str, train: str | None, test: str | None) -> tuple[str, str, list[str]]:
    """(training split, test split, notes): the published ones where they are there, else what the folder has."""
    found = None
    if not (train and test):
        found = voc_splits(data, "Main") if layout == "voc" else coco_splits(data)
    return named_or_found(data, (train, test), found, PUBLISHED[layout])


def named_or_found(
    data: Path, named: tuple[str | None, str | None], found: tuple[str, str] | None, published: tuple[str, str]
) -> tuple[str, str, list[str]]:
    """(training split, test split, notes): each as it was named, else as found in data, else as published."""
    train, test = (given or there for given, there in zip(named, found or published, strict=True))
    if all(named) or found in (None, published):
        return train, test, []
    return train, test, [f"no split was named: training on {train}, testing on {test} of {data}"]


def voc_splits(data: Path, task: str) -> tuple[str, str] | None:
    """The splits of the one folder in VOC's layout that data is or holds; None when there is none, or more than one.

    task: the folder of ImageSets with the split files, Main or Segmentation.
    """
    if (data / "VOC2007").is_dir() and (data / "VOC2012").is_dir() and task == "Main":
        return PUBLISHED["voc"]
    inside = sorted(path.parents[1].name for path in data.glob(f"*/ImageSets/{task}") if path.is_dir())
    folders = [""] if (data / "ImageSets" / task).is_dir() else inside
    if len(folders) != 1:
        return None
    splits = {path.stem for path in (data / folders[0] / "ImageSets" / task).glob("*.txt")}
    pair = next((pair for pair in VOC_PAIRS if splits.issuperset(pair)), None)
    prefix = f"{folders[0]}/" if folders[0] else ""
    return pair and (prefix + pair[0], prefix + pair[1])


def coco_splits(data: Path) -> tuple[str, str] | None:
    """The JSON file for training and the one for testing, below data; UserError when there are several of a kind."""
    annotations = data / "annotations"
    if all((annotations / f"instances_{split}.json").is_file() for split in PUBLISHED["coco"]):
        return PUBLISHED["coco"]
    files = [path for pattern in ("*.json", "*/*.json") for path in sorted(data.glob(pattern))]
    files = [path for path in files if not any(word in path.name.lower() for word in OTHER_TASKS)]
    train = kind(files, COCO_TRAIN)
    tests = next((found for word in COCO_TEST if (found := kind([f for f in files if f not in train], (word,)))), [])
    if not train or not tests:
        return None
    for found in (train, tests):
        if len(found) > 1:
            told = " and ".join(str(path.relative_to(data)) for path in found[:2])
            raise UserError(f"{data} holds {told}; name the files with --train-split FILE.json --test-split FILE.json")
    return str(train[0].relative_to(data)), str(tests[0].relative_to(data))


def kind(files: Iterable[Path], words: tuple[str, ...]) -> list[Path]:
    """The files with one of the words in their name, or else in their folder's name."""
    by_name = [path for path in files if any(word in path.stem.lower() for word in words)]
    return by_name or [path for path in files if any(word in path.parent.name.lower() for word in words)]


def coco_files(data: Path, split: str) -> tuple[Path, list[Path]]:
    """The JSON file of a split, and the folders in which its images may be.

    split: SPLIT for annotations/instances_SPLIT.json and SPLIT/, or the path of any JSON file, from data or from here.
    """
    if not split.endswith(".json"):
        path = data / "annotations" / f"instances_{split}.json"
        if not path.is_file():
            there = sorted(str(file.relative_to(data)) for file in [*data.glob("*.json"), *data.glob("*/*.json")])
            hint = f"; --train-split and --test-split take {', '.join(there[:4])}" if there else ""
            raise UserError(
                f"no annotations {path}; expected COCO's layout: annotations/instances_SPLIT.json and SPLIT/{hint}"
            )
        return path, [data / split]
    path = data / split if (data / split).is_file() else Path(split)
    if not path.is_file():
        raise UserError(f"no annotations {data / split}")
    name = path.stem.removeprefix("instances_")
    near = [data / name, path.parent / name, data / "images" / name, path.parent / "images" / name]
    return path, [*near, path.parent, data / "images", path.parent / "images", path.parent.parent / "images", data]


class Part(NamedTuple):
    """A share of the training images in 0..1, drawn by a seed: the semi-supervised experiment on COCO.

    The paper (arXiv:2011.10043) fine-tunes on 10 % of COCO's training images for the 90,000 iterations of the whole,
    and on 1 % for 9,000; that is as remembered, not checked against its text. Which images those were is not known.
    """

    share: float
    seed: int = 0

    def chosen(self, count: int) -> list[int]:
        """Which of `count` images belong to it, in order; at least one.

        A hash orders them: the same with every version of every library, and the smaller part lies in the larger.
        """
        order = sorted(range(count), key=lambda index: hashlib.sha256(f"{self.seed} {index}".encode()).digest())
        return sorted(order[: max(1, round(self.share * count))])

    @property
    def length(self) -> float:
        """Length of the schedule, in published ones: 1 for a tenth of the images, a tenth for a hundredth."""
        return min(1.0, 10 * self.share)

    def note(self, count: int, of: int) -> str:
        """The line that says what is trained on."""
        return (
            f"{count} of {of} training images ({100 * self.share:g} %, seed {self.seed}); "
            f"{self.length:g} times the published number of iterations, as in the paper (not checked against its text)"
        )
