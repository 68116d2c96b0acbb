"""A JSON file in COCO's format, read by pycocotools as untrusted input -> the same with every field a score needs.

What is plain is repaired and said (ids that are strings or repeat, missing areas); what is ambiguous is refused.
"""

import contextlib
import io
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from downstream.detection.coco_masks import mask_area
from downstream.detection.voc_xml import MAX_NAME
from pixpro.errors import UserError
from pixpro.images.decoding import MAX_PIXELS

Record = dict[str, Any]


@dataclass(frozen=True)
class CocoFile:
    """The images, annotations and categories of a file, sorted by id, with all ids integers and none twice.

    Annotations have id, image_id, category_id, bbox (four floats), area and iscrowd, and `segmentation` as it is
    where the file has one. notes: what was repaired, a line each.
    """

    path: Path
    images: list[Record]
    annotations: list[Record]
    categories: list[Record]
    notes: list[str]


def read_coco(path: Path) -> CocoFile:
    """The file's content; UserError for whatever cannot be trained on or scored."""
    try:
        raw = parse(path).dataset
        notes: list[str] = []
        categories = _categories(raw["categories"], notes)
        images = _images(raw["images"])
        annotations = _annotations(raw["annotations"], images, categories, notes)
        image_numbers, category_numbers = _numbers(images), _numbers(categories)
        if image_numbers != {key: key for key in images}:
            notes.append(f"{path}: image ids are not whole numbers; the images are counted from 1 instead")
        for key, item in images.items():
            item["id"] = image_numbers[key]
        for key, item in categories.items():
            item["id"] = category_numbers[key]
        for item in annotations:
            item["image_id"] = image_numbers[_key(item["image_id"])]
            item["category_id"] = category_numbers[_key(item["category_id"])]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, OSError) as error:
        reason = f"KeyError: {error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path} is not a COCO instances file ({reason[:300]})") from error
    if not images or not categories:
        raise UserError(f"{path} has {len(images)} images and {len(categories)} categories; expected some of each")
    by_id = {"key": lambda item: item["id"]}
    return CocoFile(path, sorted(images.values(), **by_id), annotations, sorted(categories.values(), **by_id), notes)


def parse(source: Path | Record) -> Any:
    """pycocotools' COCO of a file, or of content that is there already; its reports of progress are kept quiet."""
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        if isinstance(source, Path):
            try:
                return COCO(str(source))
            except AssertionError as error:
                raise ValueError("its content is not an object with images, annotations, categories") from error
        coco = COCO()
        coco.dataset = source
        coco.createIndex()
        return coco


def require_pycocotools() -> None:
    """UserError when COCO's files could not be read and scored here."""
    try:
        import pycocotools.cocoeval  # noqa: F401  that its compiled parts load, too
    except ImportError as error:
        raise UserError("COCO's layout needs pycocotools: pip install pycocotools") from error


def _key(value: object) -> int | str:
    """An id, the same however it is written: 7, 7.0 and "7" are one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{str(value)[:40]!r} is no id; expected a whole number or a text")
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and (text == "0" or text[0] != "0") else value


def _numbers(items: dict[int | str, Record]) -> dict[int | str, int]:
    """The number of each id: itself where all are numbers, else its place, from 1."""
    if all(isinstance(key, int) for key in items):
        return {key: key for key in items}
    return {key: number for number, key in enumerate(items, start=1)}


def _unique(items: list[Record], kind: str) -> dict[int | str, Record]:
    """Copies by id; ValueError for two of one id."""
    found: dict[int | str, Record] = {}
    for item in items:
        key = _key(item["id"])
        if key in found:
            first, second = (str(entry.get("file_name", entry.get("name")))[:60] for entry in (found[key], item))
            raise ValueError(f"two {kind} have the id {str(key)[:40]}: {first!r} and {second!r}; each needs its own")
        found[key] = dict(item)
    return found


def _categories(items: list[Record], notes: list[str]) -> dict[int | str, Record]:
    found = _unique(items, "categories")
    for item in found.values():
        item["name"] = str(item["name"]).strip()
        if not 0 < len(item["name"]) <= MAX_NAME or not item["name"].isprintable():
            raise ValueError(f"it has the category name {item['name'][:40]!r}; expected 1 to {MAX_NAME} characters")
    names = Counter(item["name"] for item in found.values())
    for key, item in found.items():
        if names[item["name"]] > 1:
            notes.append(
                f"{names[item['name']]} categories are called {item['name']!r}: that of id {key} gets a #{key}"
            )
            item["name"] += f" #{key}"
    return found


def _images(items: list[Record]) -> dict[int | str, Record]:
    found = _unique(items, "images")
    seen: dict[str, int | str] = {}
    for key, item in found.items():
        name, width, height = str(item["file_name"]), int(item["width"]), int(item["height"])
        if not (width > 0 and height > 0 and width * height <= MAX_PIXELS):
            raise ValueError(f"image {str(key)[:40]} is {width}x{height}")
        if name in seen:
            raise ValueError(
                f"the images {str(seen[name])[:40]} and {str(key)[:40]} are both {name[:99]!r}; "
                "each one counts once in the score"
            )
        seen[name] = key
        item |= {"file_name": name, "width": width, "height": height}
    return found


def _annotations(items: list[Record], images: dict, categories: dict, notes: list[str]) -> list[Record]:
    """Complete copies, in the file's order, without those of images that the file does not have."""
    kept, wrong, without_area, strays = [], [], 0, 0
    ids = {str(item["id"]) for item in items}
    for number, item in enumerate(items, start=1):
        if _key(item["image_id"]) not in images:
            strays += 1
            continue
        if _key(item["category_id"]) not in categories:
            raise ValueError(f"annotation {_named(item)} has the category {item['category_id']!r}, which it lacks")
        box = [float(side) for side in item["bbox"]]
        if len(box) != 4 or not all(abs(side) <= MAX_PIXELS for side in box):  # NaN is not
            raise ValueError(f"annotation {_named(item)} has a bbox that is not four finite numbers below {MAX_PIXELS}")
        if box[2] < 0 or box[3] < 0:
            wrong.append((item, box))
        area = item.get("area")
        if isinstance(area, bool) or not isinstance(area, int | float) or not 0 <= area < math.inf:
            without_area += 1
            image = images[_key(item["image_id"])]
            area = mask_area(item.get("segmentation"), image["height"], image["width"])
            area = box[2] * box[3] if area is None else area
        complete = {"id": number, "bbox": box, "area": float(area), "iscrowd": int(bool(item.get("iscrowd", 0)))}
        kept.append({**item, **complete})
    if wrong:
        item, box = wrong[0]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise ValueError(
            f"annotation {_named(item)} is {box[2]:g}x{box[3]:g}; expected a width and height above 0{more}"
        )
    if len(ids) < len(items):
        notes.append("annotation ids repeat: the annotations are counted anew")
    if without_area:
        notes.append(f"{without_area} annotations have no area: it is taken from the mask, or from the box without one")
    if strays:
        notes.append(f"{strays} annotations belong to images that the file does not list: they are left out")
    return kept


def _named(item: Record) -> str:
    return f"{str(item['id'])[:40]!r} of image {str(item['image_id'])[:40]!r}"
