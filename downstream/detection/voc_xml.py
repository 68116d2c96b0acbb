"""One XML file in Pascal VOC's format -> an annotated image; the file is untrusted input."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

import numpy as np

from downstream.detection.annotated import AnnotatedImage
from pixpro.errors import UserError
from pixpro.images.decoding import MAX_PIXELS

MAX_XML_BYTES = 4_000_000  # VOC's largest has 30 kB
MAX_NAME = 200  # characters of a class name
SIDES = ("xmin", "ymin", "xmax", "ymax")
FLAGS = {"0": False, "1": True, "false": False, "true": True, "no": False, "yes": True}
UNSAID = ("", "unspecified")  # what some tools write where they do not know


class VocAnnotation(NamedTuple):
    """An image whose labels are 0 still, the class name of each object, and how many do not say whether difficult."""

    image: AnnotatedImage
    names: list[str]
    unsaid: int


class _NoDoctype(ElementTree.TreeBuilder):
    """Stops at a document type declaration: VOC has none, and entities are how XML files attack their readers."""

    def doctype(self, name: str, pubid: str, system: str) -> None:
        raise ValueError("it declares a document type")


def read_annotation(xml: Path, image: Path) -> VocAnnotation:
    """An image with its boxes and the class names of its objects.

    VOC counts pixels from 1 and includes the last one: xmin = 1, xmax = W is the whole image, here 0 to W.
    """
    try:
        if xml.stat().st_size > MAX_XML_BYTES:
            raise ValueError(f"it is larger than {MAX_XML_BYTES} bytes")
        root = ElementTree.fromstring(xml.read_bytes(), ElementTree.XMLParser(target=_NoDoctype()))
        width, height = (int(_text(root, f"size/{key}")) for key in ("width", "height"))
        if not (width > 0 and height > 0 and width * height <= MAX_PIXELS):
            raise ValueError(f"it gives the image's size as {str(width)[:20]}x{str(height)[:20]}")
        names, boxes, difficult = [], [], []
        for item in root.findall("object"):
            names.append(_class_name(item))
            x0, y0, x1, y1 = _corners(item, names[-1])
            boxes.append((x0 - 1, y0 - 1, x1, y1))
            difficult.append(_flag(item))
    except (ValueError, ElementTree.ParseError, LookupError, OSError) as error:
        raise UserError(f"{xml} is not an annotation of VOC: {str(error)[:200]}") from error
    annotated = AnnotatedImage(
        image.stem,
        image,
        width,
        height,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.zeros(len(boxes), np.int64),
        np.array([bool(flag) for flag in difficult], bool),
    )
    return VocAnnotation(annotated, names, difficult.count(None))


def _class_name(item: ElementTree.Element) -> str:
    """The name of an object's class; ValueError for one that could not be shown."""
    name = _text(item, "name").strip()
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ValueError(f"it has the class name {name[:40]!r}; expected 1 to {MAX_NAME} characters")
    return name


def _corners(item: ElementTree.Element, name: str) -> list[float]:
    """xmin, ymin, xmax, ymax as they are written; ValueError unless they are finite and in order."""
    corners = [float(_text(item, f"bndbox/{side}")) for side in SIDES]
    if not all(abs(side) <= MAX_PIXELS for side in corners):  # NaN is not
        raise ValueError(f"it has a box that is not finite or has a side beyond {MAX_PIXELS}")
    for low, high in ((0, 2), (1, 3)):
        if corners[low] > corners[high]:
            told = f"{SIDES[low]} {corners[low]:g} > {SIDES[high]} {corners[high]:g}"
            raise ValueError(f"it has a {name[:40]!r} with {told}; exchange the two")
    return corners


def _flag(item: ElementTree.Element) -> bool | None:
    """Whether an object is marked as difficult; None where the file does not say (then it counts as not difficult)."""
    text = item.findtext("difficult")
    if text is None:
        return False  # the format's default
    text = text.strip().lower()
    if text in UNSAID:
        return None
    return FLAGS[text] if text in FLAGS else int(text) != 0


def _text(element: ElementTree.Element, path: str) -> str:
    """Text of a child; ValueError when it is missing."""
    text = element.findtext(path)
    if not text:
        raise ValueError(f"<{path.replace('/', '><')}> is missing")
    return text
