"""Detections on VOC images -> AP, AP50, AP75 by the 11-point metric of VOC 2007, as detectron2's evaluator gives them.

That evaluator passes detections through text files, so scores have three decimals and boxes one; it counts pixels from
1 and both ends of a box, and asks numpy for an unstable order of equal scores. All of it is done here too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from downstream.detection.annotated import AnnotatedImage

THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best first: boxes (n, 4) float32 like AnnotatedImage's, scores, labels from 1.

    masks: a run-length code of pycocotools for each, of the image's size; from a detector with masks.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: tuple[dict[str, Any], ...] = ()


def voc_scores(
    images: list[AnnotatedImage], detections: Mapping[str, Detections], class_names: list[str]
) -> dict[str, float]:
    """AP, AP50, AP75 in percent, and AP50/CLASS of every class; a class without ground truth counts as 0."""
    per_class = np.array([average_precisions(images, detections, label) for label in range(1, len(class_names) + 1)])
    mean = 100 * per_class.mean(axis=0)
    scores = {"AP": mean.mean(), "AP50": mean[0], "AP75": mean[5]}
    scores |= {f"AP50/{name}": 100 * row[0] for name, row in zip(class_names, per_class, strict=True)}
    return {name: float(score) for name, score in scores.items()}


def average_precisions(images: list[AnnotatedImage], detections: Mapping[str, Detections], label: int) -> list[float]:
    """AP of one class at the ten thresholds, each in 0..1."""
    confidences, overlaps, objects = [], [], []  # per detection: score, best IoU, which object that is
    difficult = []  # per object, over all images
    for image in images:
        of_class = image.labels == label
        truth = image.boxes[of_class].astype(np.float64) + (1, 1, 0, 0)
        first = len(difficult)
        difficult.extend(image.ignored[of_class])
        if image.image_id not in detections:
            continue
        found = detections[image.image_id]
        chosen = found.labels == label
        confidences.extend(float(f"{score:.3f}") for score in found.scores[chosen].tolist())
        for box in found.boxes[chosen].astype(np.float32) + np.array([1, 1, 0, 0], np.float32):
            iou = pixel_iou(np.array([float(f"{side:.1f}") for side in box]), truth)
            best = int(np.argmax(iou)) if len(iou) else 0
            overlaps.append(iou[best] if len(iou) else -np.inf)
            objects.append(first + best)
    order = np.argsort(-np.array(confidences))
    overlap, object_of = np.array(overlaps)[order], np.array(objects, int)[order]
    return [_average_precision(overlap > limit, object_of, np.array(difficult, bool)) for limit in THRESHOLDS]


def pixel_iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of a box (4,) with boxes (n, 4) whose last pixels belong to them: a box from 1 to 10 is 10 wide."""
    x0, y0 = np.maximum(others[:, 0], box[0]), np.maximum(others[:, 1], box[1])
    x1, y1 = np.minimum(others[:, 2], box[2]), np.minimum(others[:, 3], box[3])
    shared = np.maximum(x1 - x0 + 1, 0) * np.maximum(y1 - y0 + 1, 0)
    area = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
    areas = (others[:, 2] - others[:, 0] + 1) * (others[:, 3] - others[:, 1] + 1)
    return shared / (area + areas - shared)


def _average_precision(hits: np.ndarray, object_of: np.ndarray, difficult: np.ndarray) -> float:
    """11-point AP of detections in order: (n,) bool whether each overlaps enough, (n,) with which object."""
    taken = np.zeros(len(difficult), bool)
    true_positives, false_positives = np.zeros(len(hits)), np.zeros(len(hits))
    for i, (hit, which) in enumerate(zip(hits, object_of, strict=True)):
        if not hit:
            false_positives[i] = 1
        elif not difficult[which]:  # on a difficult object a detection counts neither way
            (false_positives if taken[which] else true_positives)[i] = 1
            taken[which] = True
    positives = (~difficult).sum()
    if not positives:
        return 0.0
    true_positives, false_positives = np.cumsum(true_positives), np.cumsum(false_positives)
    recall = true_positives / positives
    precision = true_positives / np.maximum(true_positives + false_positives, np.finfo(np.float64).eps)
    return sum(precision[recall >= t].max(initial=0.0) / 11 for t in np.arange(0.0, 1.1, 0.1))
