"""What a detection run leaves to look at: pictures of detections, results.json, a table with the published numbers."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from downstream.common.published import results_table
from downstream.detection.annotated import AnnotatedImage, DetectionSet
from downstream.detection.coco_ap import coco_scores
from downstream.detection.data import read_pixels
from downstream.detection.voc_ap import Detections, voc_scores

COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#9a6324")


def draw_detections(image: AnnotatedImage, found: Detections, class_names: list[str], threshold: float) -> Image.Image:
    """The image with each box of at least this score, its class and score; thin white boxes are the ground truth."""
    picture = Image.fromarray(read_pixels(image))
    pen = ImageDraw.Draw(picture)
    for box in image.boxes.tolist():
        pen.rectangle(box, outline="white")
    for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
        if score >= threshold:
            colour = COLOURS[(label - 1) % len(COLOURS)]
            pen.rectangle(box, outline=colour, width=2)
            text = f"{class_names[label - 1]} {score:.2f}"
            corner = (box[0], max(0, box[1] - 11))
            pen.rectangle(pen.textbbox(corner, text), fill=colour)
            pen.text(corner, text, fill="black")
    return picture


def write_pictures(
    folder: Path,
    images: list[AnnotatedImage],
    detections: Mapping[str, Detections],
    class_names: list[str],
    threshold: float = 0.5,
) -> None:
    """One PNG per image in folder, named like the image."""
    folder.mkdir(exist_ok=True)
    for image in images:
        nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0), np.zeros(0, np.int64))
        picture = draw_detections(image, detections.get(image.image_id, nothing), class_names, threshold)
        picture.save(folder / f"{Path(image.path.name).stem}.png")


def write_results(path: Path, results: dict) -> None:
    """results as JSON; the file appears complete or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(partial, path)


def scores_of(data: DetectionSet, detections: Mapping[str, Detections]) -> dict[str, float]:
    """AP, AP50, AP75 and more, in percent, by the metric of the data's layout."""
    if data.truth is not None:
        return coco_scores(data.truth, detections)
    return voc_scores(data.test, detections, data.class_names)


def table(layout: str, label: str, scores: Mapping[str, float], *, comparable: bool) -> str:
    """This run's AP below the published ones of its layout, and what keeps them from being comparable."""
    notes = [] if comparable else ["(other data or another schedule than the published rows: not to be compared)"]
    if layout == "voc":
        metrics = {f"bbox/{name}": scores[name] for name in ("AP", "AP50", "AP75")}
        return "\n".join([results_table("voc_c4_24k", label, metrics), *notes])
    notes.append("(this run has no mask head; the published boxes were trained together with masks)")
    return "\n".join([results_table("coco_c4_1x", label, {"bbox/AP": scores["AP"]}), *notes])
