"""VOC AP of detectron2's detections by this project's function: for data whose XML files detectron2's cannot read."""

import itertools
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from downstream.detection.annotated import DetectionSet
from downstream.detection.voc_ap import Detections, voc_scores


class VocEvaluator(DatasetEvaluator):
    """AP, AP50, AP75 as PascalVOCDetectionEvaluator gives them on voc_2007 sets (11 points), and AP50 of each class."""

    def __init__(self, data: DetectionSet) -> None:
        self.data, self.found = data, {}

    def reset(self) -> None:
        """Forget what was found."""
        self.found = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take in the detections of some images."""
        for given, output in zip(inputs, outputs, strict=True):
            instances = output["instances"].to("cpu")
            self.found[given["image_id"]] = Detections(
                instances.pred_boxes.tensor.numpy().astype(np.float32),
                instances.scores.numpy(),
                instances.pred_classes.numpy() + 1,
            )

    def evaluate(self) -> dict[str, Any] | None:
        """The scores, in the first process."""
        parts = comm.gather(self.found, dst=0)
        if not comm.is_main_process():
            return None
        found = dict(itertools.chain.from_iterable(part.items() for part in parts))
        scores = voc_scores(self.data.test, found, self.data.class_names)
        return {"bbox": {name.replace("AP50/", "AP50-"): score for name, score in scores.items()}}
