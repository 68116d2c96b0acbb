"""What a detection run leaves to look at: scores, a table with the published numbers, pictures of detections."""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from downstream.common.finished import picture_names
from downstream.common.published import results_table
from downstream.detection.annotated import AnnotatedImage, DetectionSet
from downstream.detection.coco_json import parse
from downstream.detection.data import as_tensor, read_pixels
from downstream.detection.voc_ap import Detections, voc_scores

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#9a6324")


def write_pictures(
    folder: Path, images: list[AnnotatedImage], detections: Mapping[str, Detections], class_names: list[str]
) -> None:
    """One PNG per image in folder, named like the image; thin white boxes are the ground truth."""
    folder.mkdir(exist_ok=True)
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0), np.zeros(0, np.int64))
    for image, name in zip(images, picture_names([image.path for image in images]), strict=True):
        found = detections.get(image.image_id, nothing)
        draw_detections(read_pixels(image), found, class_names, 0.5, image.boxes).save(folder / name)


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


def draw_detections(
    pixels: np.ndarray, found: Detections, class_names: list[str], threshold: float, truth: np.ndarray | None = None
) -> Image.Image:
    """The picture (H, W, 3) with each box of at least this score; truth: (n, 4) boxes of the objects that are there."""
    picture = as_tensor(pixels)
    if truth is not None:
        picture = draw(picture, truth, ["white"] * len(truth))
    shown = found.scores >= threshold
    labels = found.labels[shown].tolist()
    colours = [COLOURS[(label - 1) % len(COLOURS)] for label in labels]
    if found.masks and labels:
        from pycocotools import mask as codes

        masks = codes.decode([mask for mask, keep in zip(found.masks, shown, strict=True) if keep])
        masks = torch.from_numpy(masks.transpose(2, 0, 1).astype(bool))
        picture = draw_segmentation_masks(picture, masks, alpha=0.5, colors=colours)
    named = [f"{class_names[label - 1]} {score:.2f}" for label, score in zip(labels, found.scores[shown], strict=True)]
    picture = draw(picture, found.boxes[shown], colours, named, width=2)
    return Image.fromarray(picture.permute(1, 2, 0).numpy())


def draw(picture: torch.Tensor, boxes: np.ndarray, colours: list[str], names: list[str] | None = None, width: int = 1):
    """The picture (3, H, W) with the boxes (n, 4) that have a size."""
    sized = (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)
    if not sized.any():
        return picture
    kept = np.flatnonzero(sized).tolist()
    labels = [names[i] for i in kept] if names else None
    return draw_bounding_boxes(
        picture, torch.from_numpy(boxes[sized]), labels, colors=[colours[i] for i in kept], width=width
    )
