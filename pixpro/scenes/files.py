"""Files of one sample scene in VOC's layout: JPEG, XML with boxes, class mask and instance mask."""

import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
from PIL import Image

from pixpro.scenes.drawing import CLASSES, Scene, draw_scene

VOID = 255  # VOC's mark for pixels that no score counts


def voc_palette() -> list[int]:
    """VOC's colours of the values 0 to 255, flat: bit 3k + c of the value sets bit 7 - k of channel c."""
    values = np.arange(256)
    channels = [sum(((values >> (3 * k + c)) & 1) << (7 - k) for k in range(3)) for c in range(3)]
    return np.stack(channels, 1).ravel().tolist()


def _encode(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _palette_png(mask: np.ndarray) -> bytes:
    image = Image.fromarray(mask)
    image.putpalette(voc_palette())
    return _encode(image, "PNG", compress_level=3)


def describe_objects(scene: Scene, smallest: int = 40) -> tuple[list[dict], np.ndarray, np.ndarray]:
    """What can be seen: objects as fields of the XML, class mask and instance mask (H, W) uint8.

    Boxes are 1-based and inclusive around the visible part, as in VOC. Instance k of the mask is object k - 1
    of the list. Objects with fewer visible pixels than `smallest` are left out and void in both masks.
    """
    objects, classes, instances = [], np.zeros_like(scene.instances), np.zeros_like(scene.instances)
    for number, (label, visible) in enumerate(zip(scene.labels, scene.visible, strict=True), start=1):
        covered = scene.instances == number
        if covered.sum() < smallest:
            classes[covered] = instances[covered] = VOID
            continue
        rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
        xmin, xmax, ymin, ymax = columns[0] + 1, columns[-1] + 1, rows[0] + 1, rows[-1] + 1
        hard = visible < 0.3 or min(xmax - xmin, ymax - ymin) < 10
        objects.append(
            dict(name=CLASSES[label], truncated=int(visible < 0.95), difficult=int(hard))
            | dict(xmin=int(xmin), ymin=int(ymin), xmax=int(xmax), ymax=int(ymax))
        )
        classes[covered], instances[covered] = label + 1, len(objects)
    return objects, classes, instances


def _annotation(filename: str, shape: tuple[int, int], objects: list[dict]) -> bytes:
    """The XML file of an image of (height, width) shape."""
    sides = ("xmin", "ymin", "xmax", "ymax")
    root = ElementTree.Element("annotation")
    _fill(root, {"folder": "scenes", "filename": filename, "source": {"database": "pixpro sample scenes"}})
    _fill(root, {"size": {"width": shape[1], "height": shape[0], "depth": 3}, "segmented": 1})
    for found in objects:
        named = {"name": found["name"], "pose": "Unspecified"}
        flags = {flag: found[flag] for flag in ("truncated", "difficult")}
        _fill(root, {"object": named | flags | {"bndbox": {side: found[side] for side in sides}}})
    ElementTree.indent(root, "\t")
    return ElementTree.tostring(root) + b"\n"


def _fill(element: ElementTree.Element, content: dict) -> None:
    """Add a child for each entry: text, or the children in a dict."""
    for name, value in content.items():
        child = ElementTree.SubElement(element, name)
        if isinstance(value, dict):
            _fill(child, value)
        else:
            child.text = str(value)


def scene_files(seed: int, index: int, name: str) -> dict[Path, bytes]:
    """The four files of a scene, by their path in a VOC folder."""
    scene = draw_scene(seed, index)
    objects, classes, instances = describe_objects(scene)
    xml = _annotation(f"{name}.jpg", classes.shape, objects)
    return {
        Path("JPEGImages", f"{name}.jpg"): _encode(Image.fromarray(scene.pixels), "JPEG", quality=90),
        Path("Annotations", f"{name}.xml"): xml,
        Path("SegmentationClass", f"{name}.png"): _palette_png(classes),
        Path("SegmentationObject", f"{name}.png"): _palette_png(instances),
    }
