"""Annotations in COCO's format as people have them are read and scored as pycocotools would."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest

from downstream.detection.annotated import check_set
from downstream.detection.coco import load_coco
from downstream.detection.report import coco_scores
from downstream.detection.voc_ap import Detections
from pixpro.scenes.coco import write_coco
from tests.helpers.coco_edits import change, without

pycocotools_coco = pytest.importorskip("pycocotools.coco")


@pytest.fixture
def coco(scenes: Path, tmp_path: Path) -> Path:
    return write_coco(scenes, tmp_path / "coco")


def near(data) -> dict[str, Detections]:
    """Detections a little beside the truth, with unlike scores: an AP between 0 and 100."""
    draw = np.random.default_rng(0)
    return {
        image.image_id: Detections(
            (image.boxes + draw.normal(0, 3, image.boxes.shape)).astype(np.float32),
            draw.random(len(image.boxes)),
            image.labels,
        )
        for image in data.test
    }


def by_pycocotools(content: dict, data, detections: dict[str, Detections]) -> list[float]:
    """The first six statistics of a well-formed file, by pycocotools alone; images in the order of their ids."""
    from pycocotools.cocoeval import COCOeval

    truth = pycocotools_coco.COCO()
    truth.dataset = content
    ids = sorted(image["id"] for image in content["images"])
    places = dict(zip((image.image_id for image in data.test), ids, strict=True))
    numbers = {category["name"]: category["id"] for category in content["categories"]}
    found = [
        {"image_id": places[key], "category_id": numbers[data.class_names[label - 1]], "score": score}
        | {"bbox": [x0, y0, x1 - x0, y1 - y0]}
        for key, result in detections.items()
        for (x0, y0, x1, y1), score, label in zip(
            result.boxes.tolist(), result.scores.tolist(), result.labels.tolist(), strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [100 * value for value in evaluation.stats[:6]]


def text_ids(content: dict) -> None:
    for item in content["images"]:
        item["id"] = f"scene-{item['id']:06d}"
    for item in content["annotations"]:
        item["image_id"] = f"scene-{item['image_id']:06d}"


def digit_ids_on_one_side(content: dict) -> None:
    for item in content["annotations"]:
        item["image_id"] = str(item["image_id"])


def one_annotation_id(content: dict) -> None:
    for item in content["annotations"]:
        item["id"] = 1


def ids_from_zero(content: dict) -> None:
    for number, item in enumerate(content["annotations"]):
        item["id"] = number


def scattered_categories(content: dict) -> None:
    for item in content["categories"]:
        item["id"] = 1000 - 7 * item["id"]
    for item in content["annotations"]:
        item["category_id"] = 1000 - 7 * item["category_id"]


def strays(content: dict) -> None:
    content["annotations"] += [{**content["annotations"][0], "id": 9999, "image_id": 777}]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (without("iscrowd"), ""),
        (without("segmentation"), ""),
        (text_ids, "image ids are not whole numbers"),
        (digit_ids_on_one_side, ""),
        (one_annotation_id, "annotation ids repeat"),
        (ids_from_zero, ""),
        (scattered_categories, ""),
        (strays, "1 annotations belong to images that the file does not list"),
    ],
)
def test_what_is_plain_is_read_said_and_scored_as_the_whole_file_would_be(coco: Path, edit, said: str):
    whole = change(coco, edit)
    data = load_coco(coco, "train2017", "val2017")
    lines = check_set(data)
    assert said in "\n".join(lines) if said else not any("area" in line or "id" in line.split() for line in lines)
    detections = near(data)
    scores = coco_scores(data.truth, detections)
    expected = by_pycocotools(whole, data, detections)
    named = zip(("AP", "AP50", "AP75", "APs", "APm", "APl"), expected, strict=True)
    assert scores == pytest.approx({name: value for name, value in named if value >= 0})
    assert 0 < scores["AP"] < 100


def test_without_areas_they_are_those_of_the_masks(coco: Path):
    whole = change(coco, without("area"))
    data = load_coco(coco, "train2017", "val2017")
    assert any(f"{len(whole['annotations'])} annotations have no area" in note for note in data.notes)
    by_itself = pycocotools_coco.COCO()
    by_itself.dataset = whole
    with contextlib.redirect_stdout(io.StringIO()):
        by_itself.createIndex()
    masks = [by_itself.annToMask(item) for item in whole["annotations"]]
    assert [item["area"] for item in data.truth["annotations"]] == [mask.sum() for mask in masks]
    assert coco_scores(data.truth, near(data))["AP"] == pytest.approx(by_pycocotools(whole, data, near(data))[0])


def test_without_masks_and_areas_the_area_is_the_boxs(coco: Path):
    def edit(content: dict) -> None:
        for item in content["annotations"]:
            del item["area"], item["segmentation"]

    change(coco, edit)
    truth = load_coco(coco, "train2017", "val2017").truth
    assert all(item["area"] == item["bbox"][2] * item["bbox"][3] for item in truth["annotations"])


def test_categories_of_one_name_stay_two_classes(coco: Path):
    for split in ("train2017", "val2017"):
        change(coco, lambda content: content["categories"][1].update(name=content["categories"][0]["name"]), split)
    data = load_coco(coco, "train2017", "val2017")
    name = data.class_names[0].removesuffix(" #1")
    assert data.class_names[:2] == [f"{name} #1", f"{name} #2"]
    assert any("2 categories are called" in note for note in data.notes)


def test_splits_that_number_their_classes_otherwise_are_matched_by_name(coco: Path):
    before = load_coco(coco, "train2017", "val2017")
    change(coco, scattered_categories)
    data = load_coco(coco, "train2017", "val2017")
    assert data.class_names == before.class_names
    assert [image.labels.tolist() for image in data.test] == [image.labels.tolist() for image in before.test]


def test_objects_without_area_are_counted_as_unfindable(coco: Path):
    change(coco, lambda content: content["annotations"][0].update(bbox=[5, 5, 0, 0]))
    assert any("1 objects of the test" in note for note in check_set(load_coco(coco, "train2017", "val2017")))
