"""What a detection run leaves to look at: pictures of detections, scores, a table with the published numbers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from downstream.common.finished import picture_names
from downstream.common.published import results_table
from downstream.detection.annotated import AnnotatedImage, DetectionSet
from downstream.detection.coco_ap import coco_scores
from downstream.detection.data import read_pixels
from downstream.detection.drawing import draw_detections
from downstream.detection.voc_ap import Detections, voc_scores


def write_pictures(
    folder: Path,
    images: list[AnnotatedImage],
    detections: Mapping[str, Detections],
    class_names: list[str],
    threshold: float = 0.5,
) -> None:
    """One PNG per image in folder, named like the image; thin white boxes are the ground truth."""
    folder.mkdir(exist_ok=True)
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0), np.zeros(0, np.int64))
    for image, name in zip(images, picture_names([image.path for image in images]), strict=True):
        found = detections.get(image.image_id, nothing)
        draw_detections(read_pixels(image), found, class_names, threshold, image.boxes).save(folder / name)


def scores_of(data: DetectionSet, detections: Mapping[str, Detections]) -> dict[str, float]:
    """AP, AP50, AP75 and more, in percent, by the metric of the data's layout."""
    if data.truth is not None:
        scores = coco_scores(data.truth, detections)
        if any(found.masks for found in detections.values()):
            scores |= {f"mask {name}": value for name, value in coco_scores(data.truth, detections, "segm").items()}
        return scores
    return voc_scores(data.test, detections, data.class_names)


def table(layout: str, detector: str, label: str, scores: Mapping[str, float], *, comparable: bool) -> str:
    """This run's AP below the published ones of its layout and detector, and what keeps them from being comparable."""
    notes = [] if comparable else ["(other data or another schedule than the published rows: not to be compared)"]
    if layout == "voc":
        metrics = {f"bbox/{name}": scores[name] for name in ("AP", "AP50", "AP75")}
        if detector == "fpn":
            notes.append("(the published detector is the C4 one)")
        return "\n".join([results_table("voc_c4_24k", label, metrics), *notes])
    metrics = {"bbox/AP": scores["AP"], "segm/AP": scores.get("mask AP")}
    if metrics["segm/AP"] is None:
        notes.append("(this run has no masks; the published boxes were trained together with masks)")
    return "\n".join([results_table(f"coco_{detector}_1x", label, metrics), *notes])
