"""Folders in Pascal VOC's layout -> annotated images: split files and XML, read as untrusted input."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from downstream.detection.annotated import AnnotatedImage, DetectionSet, file_inside, trainable
from downstream.finetuning.paths import VOC_NAMES
from pixpro.errors import UserError
from pixpro.images.decoding import MAX_PIXELS

CLASS_NAMES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle"),
    *("bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]
MAX_XML_BYTES = 4_000_000  # VOC's largest has 30 kB
MAX_NAME = 200  # characters of a class name


class _NoDoctype(ElementTree.TreeBuilder):
    """Stops at a document type declaration: VOC has none, and entities are how XML files attack their readers."""

    def doctype(self, name: str, pubid: str, system: str) -> None:
        raise ValueError("it declares a document type")


def load_voc(data: Path, train_splits: str, test_split: str) -> DetectionSet:
    """The splits' images. Classes are those of the training split, in VOC's order or else sorted by name.

    train_splits: joined by `+`. A split is detectron2's name (voc_2007_trainval: data/VOC2007), or FOLDER/SPLIT
    for data/FOLDER, or SPLIT when data is itself the folder with Annotations and JPEGImages.
    """
    train_objects = [entry for split in train_splits.split("+") for entry in _read_split(data, split)]
    test_objects = _read_split(data, test_split)
    found = {name for _, objects in train_objects for name in objects}
    class_names = [n for n in CLASS_NAMES if n in found] if found <= set(CLASS_NAMES) else sorted(found)
    train = trainable([_labelled(image, names, class_names) for image, names in train_objects], train_splits)
    return DetectionSet(train, [_labelled(image, names, class_names) for image, names in test_objects], class_names)


def _read_split(data: Path, split: str) -> list[tuple[AnnotatedImage, list[str]]]:
    """Every image of a split, in the file's order, with the class names of its objects (labels are 0 still)."""
    folder, name = VOC_NAMES[split] if split in VOC_NAMES else (split.rpartition("/")[0], split.rpartition("/")[2])
    root = data / folder
    listing = root / "ImageSets" / "Main" / f"{name}.txt"
    if not listing.is_file():
        raise UserError(f"no split file {listing}; expected VOC's layout: ImageSets/Main, Annotations, JPEGImages")
    ids = [line.strip() for line in listing.read_text(errors="replace").splitlines() if line.strip()]
    if not ids:
        raise UserError(f"{listing} lists no images")
    if len(set(ids)) < len(ids):
        raise UserError(f"{listing} lists an image twice; each one counts once in the score")
    for image_id in ids:
        if not re.fullmatch(r"[\w][\w.-]*", image_id):
            raise UserError(f"{listing} has the line {image_id[:60]!r}; expected one image name per line")
    return [
        read_annotation(
            file_inside(root / "Annotations", f"{image_id}.xml", listing),
            file_inside(root / "JPEGImages", f"{image_id}.jpg", listing),
        )
        for image_id in ids
    ]


def read_annotation(xml: Path, image: Path) -> tuple[AnnotatedImage, list[str]]:
    """An image with its boxes and the class names of its objects.

    VOC counts pixels from 1 and includes the last one: xmin = 1, xmax = W is the whole image, here 0 to W.
    """
    try:
        if xml.stat().st_size > MAX_XML_BYTES:
            raise ValueError(f"it is larger than {MAX_XML_BYTES} bytes")
        root = ElementTree.fromstring(xml.read_bytes(), ElementTree.XMLParser(target=_NoDoctype()))
        width, height = (int(_text(root, f"size/{key}")) for key in ("width", "height"))
        names, boxes, difficult = [], [], []
        for item in root.findall("object"):
            x0, y0, x1, y1 = (float(_text(item, f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax"))
            if not all(abs(side) <= MAX_PIXELS for side in (x0, y0, x1, y1)):  # NaN is not
                raise ValueError(f"it has a box that is not finite or has a side beyond {MAX_PIXELS}")
            names.append(_text(item, "name").strip())
            if not 0 < len(names[-1]) <= MAX_NAME or not names[-1].isprintable():
                raise ValueError(f"it has the class name {names[-1][:40]!r}; expected 1 to {MAX_NAME} characters")
            boxes.append((x0 - 1, y0 - 1, x1, y1))
            difficult.append(int(item.findtext("difficult", "0")) != 0)
        if not (width > 0 and height > 0 and width * height <= MAX_PIXELS):
            raise ValueError(f"it gives the image's size as {str(width)[:20]}x{str(height)[:20]}")
    except (ValueError, ElementTree.ParseError, LookupError, OSError) as error:
        raise UserError(f"{xml} is not an annotation of VOC: {str(error)[:200]}") from error
    annotated = AnnotatedImage(
        image.stem,
        image,
        width,
        height,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.zeros(len(boxes), np.int64),
        np.array(difficult, bool),
    )
    return annotated, names


def _text(element: ElementTree.Element, path: str) -> str:
    """Text of a child; ValueError when it is missing."""
    text = element.findtext(path)
    if not text:
        raise ValueError(f"<{path.replace('/', '><')}> is missing")
    return text


def _labelled(image: AnnotatedImage, names: list[str], class_names: list[str]) -> AnnotatedImage:
    """The image with labels from 1; UserError for a class that the training split does not have."""
    unknown = [name for name in names if name not in class_names]
    if unknown:
        raise UserError(f"{image.path} shows a {unknown[0]!r}, a class that the training split does not have")
    labels = np.array([class_names.index(name) + 1 for name in names], np.int64)
    return AnnotatedImage(image.image_id, image.path, image.width, image.height, image.boxes, labels, image.ignored)
