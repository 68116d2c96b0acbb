"""Masks of COCO's annotations: polygons or run-length codes -> pycocotools' code, and what cannot be one."""

import contextlib
import math
from collections.abc import Iterable
from typing import Any

Record = dict[str, Any]


def encode_mask(segmentation: object, height: int, width: int) -> Record:
    """The run-length code of polygons or of a run-length code as COCO writes it; ValueError for anything else."""
    from pycocotools import mask

    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(f"it is a mask of {segmentation['size']}, the image has {[height, width]}")
        counts = segmentation["counts"]
        return mask.frPyObjects(segmentation, height, width) if isinstance(counts, list) else segmentation
    if not _polygons(segmentation):
        raise ValueError("it is neither a list of polygons of three corners or more nor a run-length code")
    return mask.merge(mask.frPyObjects(segmentation, height, width))


def mask_area(segmentation: object, height: int, width: int) -> float | None:
    """Pixels of a mask; None when there is none that can be read."""
    from pycocotools import mask

    if segmentation:
        with contextlib.suppress(Exception):  # whatever the decoder says of a damaged code
            return float(mask.area(encode_mask(segmentation, height, width)))
    return None


def without_mask(images: list[Record], annotations: list[Record]) -> Iterable[tuple[Record, str]]:
    """The annotations that no mask score could use, each with the reason."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in images}
    for item in annotations:
        try:
            encode_mask(item.get("segmentation"), *sizes[item["image_id"]])
        except Exception as error:  # whatever the decoder says of a damaged code
            yield item, str(error)[:120] or type(error).__name__


def _polygons(segmentation: object) -> bool:
    """Whether this is a list of polygons, each a flat list of three finite corners or more."""
    return (
        isinstance(segmentation, list)
        and len(segmentation) > 0
        and all(
            isinstance(corners, list)
            and len(corners) >= 6
            and len(corners) % 2 == 0
            and all(isinstance(side, int | float) and math.isfinite(side) for side in corners)
            for corners in segmentation
        )
    )
