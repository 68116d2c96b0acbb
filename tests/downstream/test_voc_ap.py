"""VOC's AP is the one computed by hand, and the one of detectron2's evaluator."""

import json
from pathlib import Path

import numpy as np
import pytest

from downstream.detection.annotated import AnnotatedImage
from downstream.detection.voc_ap import Detections, average_precisions, pixel_iou, voc_scores
from tests.helpers.voc_case import CLASSES, make_case

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "voc_ap.json").read_text())


def image(*objects: tuple[list[float], int, bool], name: str = "a") -> AnnotatedImage:
    """An image with objects of (box from corner 0, label, difficult)."""
    boxes = np.array([box for box, _, _ in objects], np.float32).reshape(-1, 4)
    labels, hard = np.array([o[1] for o in objects], np.int64), np.array([o[2] for o in objects], bool)
    return AnnotatedImage(name, Path("none"), 100, 100, boxes, labels, hard)


def found(*results: tuple[list[float], float, int]) -> Detections:
    """Detections of (box, score, label)."""
    boxes, scores, labels = zip(*results, strict=True)
    return Detections(np.array(boxes, np.float32), np.array(scores), np.array(labels))


def test_boxes_include_their_last_pixel():
    box = np.array([1.0, 1.0, 10.0, 10.0])
    others = np.array([[6.0, 1.0, 15.0, 10.0], [1.0, 1.0, 10.0, 5.0], [11.0, 1.0, 20.0, 10.0]])
    assert pixel_iou(box, others) == pytest.approx([50 / 150, 50 / 100, 0.0])


def test_a_false_alarm_above_half_of_the_objects_gives_three_elevenths():
    truth = image(([0, 0, 20, 20], 1, False), ([50, 50, 80, 80], 1, False))
    results = found(([70, 0, 90, 10], 0.9, 1), ([0, 0, 20, 20], 0.8, 1))
    # recall 1/2 with precision 1/2: six of the eleven recall levels are reached
    assert average_precisions([truth], {"a": results}, 1) == pytest.approx([3 / 11] * 10)


def test_a_second_detection_of_an_object_is_a_false_alarm():
    truth = image(([0, 0, 20, 20], 1, False), ([50, 50, 80, 80], 1, False))
    results = found(([0, 0, 20, 20], 0.9, 1), ([0, 0, 20, 20], 0.8, 1), ([50, 50, 80, 80], 0.7, 1))
    assert average_precisions([truth], {"a": results}, 1) == pytest.approx([(6 * 1 + 5 * 2 / 3) / 11] * 10)


def test_a_difficult_object_is_neither_wanted_nor_a_false_alarm():
    truth = image(([0, 0, 20, 20], 1, True), ([50, 50, 80, 80], 1, False))
    results = found(([0, 0, 20, 20], 0.9, 1), ([0, 0, 20, 20], 0.8, 1), ([50, 50, 80, 80], 0.7, 1))
    assert average_precisions([truth], {"a": results}, 1) == pytest.approx([1.0] * 10)


def test_an_overlap_must_exceed_the_threshold():
    truth = image(([0, 0, 10, 10], 1, False))
    results = {"a": found(([0, 0, 10, 5], 0.9, 1))}  # IoU is 1/2
    assert average_precisions([truth], results, 1) == [0.0] * 10
    results = {"a": found(([0, 0, 10, 6], 0.9, 1))}  # IoU is 0.6: found at 0.50 and 0.55 alone
    assert average_precisions([truth], results, 1) == pytest.approx([1.0] * 2 + [0.0] * 8)


def test_other_images_and_other_classes_do_not_count():
    first, second = image(([0, 0, 20, 20], 1, False)), image(([0, 0, 20, 20], 2, False), name="b")
    results = {"b": found(([0, 0, 20, 20], 0.9, 1)), "a": found(([0, 0, 20, 20], 0.9, 2))}
    scores = voc_scores([first, second], results, ["cat", "dog"])
    assert scores == {"AP": 0.0, "AP50": 0.0, "AP75": 0.0, "AP50/cat": 0.0, "AP50/dog": 0.0}


def test_scores_are_means_over_classes_in_percent():
    truth = image(([0, 0, 20, 20], 1, False), ([50, 50, 80, 80], 2, False))
    scores = voc_scores([truth], {"a": found(([0, 0, 20, 20], 0.9, 1))}, ["cat", "dog"])
    assert scores == pytest.approx({"AP": 50.0, "AP50": 50.0, "AP75": 50.0, "AP50/cat": 100.0, "AP50/dog": 0.0})


def test_a_run_that_found_nothing_has_zero_ap():
    scores = voc_scores([image(([0, 0, 20, 20], 1, False))], {}, ["cat"])
    assert scores["AP"] == 0.0


@pytest.mark.parametrize("seed", range(6))
def test_random_cases_score_as_recorded_from_detectron2(seed: int):
    scores = voc_scores(*make_case(seed), CLASSES)
    assert GOLDEN[str(seed)] == {name: pytest.approx(scores[name], abs=1e-12) for name in ("AP", "AP50", "AP75")}


@pytest.mark.detectron2
def test_random_cases_score_as_in_detectron2(tmp_path: Path):
    pytest.importorskip("detectron2", reason="detectron2 is not on the path", exc_type=ImportError)
    from tests.helpers.d2_voc import evaluator_scores

    for seed in range(100, 120):
        images, detections = make_case(seed, images=30)
        scores = voc_scores(images, detections, CLASSES)
        expected = evaluator_scores(tmp_path / str(seed), images, detections)
        assert expected == {name: pytest.approx(scores[name], abs=1e-12) for name in ("AP", "AP50", "AP75")}
        assert 5 < expected["AP"] < 90
