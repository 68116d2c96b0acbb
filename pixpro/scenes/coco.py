"""A folder of sample scenes -> COCO's layout: instances JSON with polygons and boxes, and the images."""

import json
import shutil
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from pixpro.scenes.drawing import CLASSES

SPLITS = {"train2017": "trainval", "val2017": "test"}


def outlines(mask: np.ndarray) -> list[list[float]]:
    """Outer outlines of a mask (H, W) bool as flat polygons x0, y0, x1, y1, ..., along the pixels' edges.

    One polygon for each 4-connected part; holes are filled, as COCO's polygons cannot hold them.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    follow = defaultdict(list)
    # an edge between a covered and an uncovered pixel, directed so that the covered one lies on its right
    for y, x in np.argwhere(np.diff(padded, axis=0)[:, 1:-1]):
        edge = ((x, y), (x + 1, y)) if padded[y + 1, x + 1] else ((x + 1, y), (x, y))
        follow[edge[0]].append(edge[1])
    for y, x in np.argwhere(np.diff(padded, axis=1)[1:-1]):
        edge = ((x, y + 1), (x, y)) if padded[y + 1, x + 1] else ((x, y), (x, y + 1))
        follow[edge[0]].append(edge[1])
    polygons = []
    while follow:
        start = point = next(iter(follow))
        step: tuple[int, int] | None = None
        loop: list[tuple[int, int]] = []
        while True:
            ends = follow[point]
            # where two parts touch at a corner, turn right: each part keeps its own outline
            right = (point[0] - step[1], point[1] + step[0]) if step else None
            following = ends.pop(ends.index(right)) if right in ends else ends.pop()
            if not ends:
                del follow[point]
            move = (following[0] - point[0], following[1] - point[1])
            if move != step:
                loop.append(point)
            step, point = move, following
            if point == start:
                break
        x, y = np.array(loop, np.float64).T
        if np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) > 0:
            polygons.append([float(value) for corner in loop for value in corner])
    return polygons


def _annotations(scenes: Path, name: str, image_id: int) -> list[dict]:
    with Image.open(scenes / "SegmentationObject" / f"{name}.png") as image:
        instances = np.asarray(image)
    root = ElementTree.parse(scenes / "Annotations" / f"{name}.xml").getroot()
    found = []
    for number, element in enumerate(root.iter("object"), start=1):
        corner = [int(element.findtext(f"bndbox/{key}", "0")) for key in ("xmin", "ymin", "xmax", "ymax")]
        left, top = corner[0] - 1, corner[1] - 1
        found.append(
            {
                "image_id": image_id,
                "category_id": CLASSES.index(element.findtext("name", "")) + 1,
                "bbox": [left, top, corner[2] - left, corner[3] - top],
                "area": int((instances == number).sum()),
                "segmentation": outlines(instances == number),
                "iscrowd": 0,
            }
        )
    return found


def write_coco(scenes: str | Path, folder: str | Path) -> Path:
    """`folder` with train2017, val2017 and annotations/instances_*.json from a folder of `write_scenes`."""
    scenes, folder = Path(scenes), Path(folder)
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for target, split in SPLITS.items():
        (folder / target).mkdir(exist_ok=True)
        images, annotations = [], []
        for name in (scenes / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
            path = folder / target / f"{name}.jpg"
            shutil.copyfile(scenes / "JPEGImages" / path.name, path)
            with Image.open(path) as image:
                size = {"width": image.width, "height": image.height}
            images.append({"id": int(name), "file_name": path.name} | size)
            annotations += _annotations(scenes, name, int(name))
        for number, annotation in enumerate(annotations, start=1):
            annotation["id"] = number
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instances_{target}.json").write_text(json.dumps(content))
    return folder
