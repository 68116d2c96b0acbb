"""Detections on COCO images -> AP of boxes or masks as COCO defines it, by pycocotools."""

import contextlib
import io
from collections.abc import Mapping
from typing import Any

from downstream.detection.coco_json import parse
from downstream.detection.voc_ap import Detections

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def coco_scores(truth: dict[str, Any], detections: Mapping[str, Detections], kind: str = "bbox") -> dict[str, float]:
    """AP, AP50, AP75, APs, APm, APl in percent over all images of the truth, which is DetectionSet's.

    kind: bbox for boxes, segm for masks, which the detections then have. A size of which there is no object has no AP:
    that name is left out.
    """
    from pycocotools.cocoeval import COCOeval

    found = [
        {"image_id": int(image_id), "category_id": label, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score}
        for image_id, result in detections.items()
        for (x0, y0, x1, y1), score, label in zip(
            result.boxes.tolist(), result.scores.tolist(), result.labels.tolist(), strict=True
        )
    ]
    if kind == "segm":
        masks = [mask for result in detections.values() for mask in result.masks]
        for item, mask in zip(found, masks, strict=True):
            del item["bbox"]  # the area that sizes go by is then the mask's
            item["segmentation"] = mask
    if not found:
        return dict.fromkeys(NAMES, 0.0)
    coco = parse(truth)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        evaluation = COCOeval(coco, coco.loadRes(found), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    pairs = zip(NAMES, evaluation.stats, strict=False)
    return {name: 100 * float(value) for name, value in pairs if value >= 0}  # -1: there is nothing to find
