"""Writes voc_ap.json: scores of detectron2's PascalVOCDetectionEvaluator on the cases of tests/helpers/voc_case.py.

Needs detectron2 (made with commit 02b5c4e295e990042a714712c21dc79b731e8833); run as
`PYTHONPATH=.:DETECTRON2 python tests/golden/make_voc_ap.py`.
"""

import json
import tempfile
from pathlib import Path

from tests.helpers.d2_voc import evaluator_scores
from tests.helpers.voc_case import make_case


def main() -> None:
    record = {}
    for seed in range(6):
        with tempfile.TemporaryDirectory() as folder:
            record[seed] = evaluator_scores(Path(folder), *make_case(seed))
    Path(__file__).with_name("voc_ap.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
