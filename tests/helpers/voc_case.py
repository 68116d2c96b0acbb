"""Random VOC ground truth and detections, the same from the same seed everywhere."""

import random

import numpy as np

from downstream.detection.annotated import AnnotatedImage
from downstream.detection.voc_ap import Detections

CLASSES = ["cat", "dog", "sheep"]


def make_case(seed: int, images: int = 12) -> tuple[list[AnnotatedImage], dict[str, Detections]]:
    """Images of up to six objects, some difficult; detections near them, doubled, elsewhere, with equal scores."""
    draw = random.Random(seed)
    truths, found = [], {}
    for number in range(images):
        boxes, labels, hard = [], [], []
        for _ in range(draw.randrange(7)):
            x0, y0 = draw.randrange(300), draw.randrange(200)
            boxes.append((x0, y0, x0 + draw.randrange(20, 150), y0 + draw.randrange(20, 150)))
            labels.append(draw.randrange(3) + 1)
            hard.append(draw.random() < 0.25)
        name = f"{number:06d}"
        shape = (450, 350, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(hard, bool))
        truths.append(AnnotatedImage(name, None, *shape))
        near = [(box, label) for box, label in zip(boxes, labels, strict=True) for _ in range(draw.randrange(4))]
        near += [((x, x, x + 40, x + 60), draw.randrange(3) + 1) for x in range(0, draw.randrange(1, 200), 50)]
        moved = [[side + draw.gauss(0, 8) for side in box] for box, _ in near]
        guesses = [label if draw.random() < 0.9 else draw.randrange(3) + 1 for _, label in near]
        scores = np.array([round(draw.random(), 2) + draw.random() / 500 for _ in near])  # many equal in three decimals
        if draw.random() < 0.9:
            boxes32 = np.array(moved, np.float32).reshape(-1, 4)
            found[name] = Detections(boxes32, scores, np.array(guesses, np.int64))
    return truths, found
