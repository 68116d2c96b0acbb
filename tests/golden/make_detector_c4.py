"""Writes detector_c4.json: what detectron2's own C4 model gives on the case of tests/helpers/c4_case.py.

Needs detectron2 (made with commit 02b5c4e295e990042a714712c21dc79b731e8833); run as
`PYTHONPATH=.:DETECTRON2 python tests/golden/make_detector_c4.py`.
"""

import json
from pathlib import Path

from tests.helpers import c4_case, d2_case


def main() -> None:
    images, targets = c4_case.make_images(), c4_case.make_targets()
    model = c4_case.make_detector(residual=0.5)
    reference = d2_case.build_reference(model, c4_case.NUM_CLASSES, c4_case.PROPOSALS)
    detections = d2_case.detect(reference, images)
    one_step = {k: v.item() for k, v in d2_case.losses(reference, images, targets).items()}
    damped = c4_case.make_detector(residual=0.05)
    reference = d2_case.build_reference(damped, c4_case.NUM_CLASSES, c4_case.PROPOSALS)
    record = {
        "detections": [{k: v.tolist() for k, v in result.items()} for result in detections],
        "losses": one_step,
        "sgd": c4_case.sgd_losses(reference, lambda: d2_case.losses(reference, images, targets), steps=6),
    }
    path = Path(__file__).with_name("detector_c4.json")
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
