"""Scores by detectron2's PascalVOCDetectionEvaluator; imported only by what needs detectron2."""

from pathlib import Path

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import PascalVOCDetectionEvaluator
from detectron2.structures import Boxes, Instances

from downstream.detection.annotated import AnnotatedImage
from downstream.detection.voc_ap import Detections
from tests.helpers.voc_case import CLASSES

OBJECT = """<object><name>{}</name><pose>Left</pose><truncated>0</truncated><difficult>{}</difficult>
<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"""


def evaluator_scores(folder: Path, images: list[AnnotatedImage], detections: dict[str, Detections]) -> dict[str, float]:
    """AP, AP50, AP75 of the detections, with the ground truth written below folder in VOC's layout."""
    for part in ("Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    (folder / "ImageSets/Main/test.txt").write_text("\n".join(image.image_id for image in images))
    for image in images:
        objects = [
            OBJECT.format(CLASSES[label - 1], int(hard), *(int(side) for side in box + np.array([1, 1, 0, 0])))
            for box, label, hard in zip(image.boxes, image.labels, image.ignored, strict=True)
        ]
        size = f"<size><width>{image.width}</width><height>{image.height}</height><depth>3</depth></size>"
        text = f"<annotation>{size}{''.join(objects)}</annotation>"
        (folder / "Annotations" / f"{image.image_id}.xml").write_text(text)
    name = f"voc_case_{folder}"
    MetadataCatalog.get(name).set(thing_classes=CLASSES, dirname=str(folder), year=2007, split="test")
    evaluator = PascalVOCDetectionEvaluator(name)
    evaluator.reset()
    for image in images:
        if image.image_id in detections:
            found = detections[image.image_id]
            result = Instances((image.height, image.width))
            result.pred_boxes = Boxes(torch.from_numpy(found.boxes))
            result.scores = torch.from_numpy(found.scores)
            result.pred_classes = torch.from_numpy(found.labels - 1)
            evaluator.process([{"image_id": image.image_id}], [{"instances": result}])
    return {key: float(value) for key, value in evaluator.evaluate()["bbox"].items()}
