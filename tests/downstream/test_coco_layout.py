"""Detection data in COCO's layout are read as it defines them, scored by COCO's AP, and refused when wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

from downstream.detection.coco import load_coco
from downstream.detection.report import coco_scores
from downstream.detection.voc import load_voc
from downstream.detection.voc_ap import Detections
from pixpro.errors import UserError
from pixpro.scenes.coco import write_coco


def test_coco_and_voc_layouts_of_the_same_scenes_agree(scenes: Path, tmp_path: Path):
    voc = load_voc(scenes, "trainval", "test")
    coco = load_coco(write_coco(scenes, tmp_path / "coco"), "train2017", "val2017")
    for ours, theirs in zip(voc.train + voc.test, coco.train + coco.test, strict=True):
        assert int(ours.image_id) == int(theirs.image_id)
        assert ours.boxes.tolist() == theirs.boxes.tolist()
        assert [voc.class_names[i - 1] for i in ours.labels] == [coco.class_names[i - 1] for i in theirs.labels]


def test_coco_ap_of_the_truth_is_100_and_of_nothing_0(scenes: Path, tmp_path: Path):
    pytest.importorskip("pycocotools")
    data = load_coco(write_coco(scenes, tmp_path / "coco"), "train2017", "val2017")
    truth = {i.image_id: Detections(i.boxes, np.ones(len(i.boxes)), i.labels) for i in data.test}
    assert coco_scores(data.truth, truth)["AP"] == pytest.approx(100)
    assert coco_scores(data.truth, {})["AP"] == 0
    shifted = {k: Detections(d.boxes + 1000, d.scores, d.labels) for k, d in truth.items()}
    assert coco_scores(data.truth, shifted)["AP"] == pytest.approx(0)


def test_crowds_are_not_trained_on(scenes: Path, tmp_path: Path):
    folder = write_coco(scenes, tmp_path / "coco")
    path = folder / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(content))
    data = load_coco(folder, "train2017", "val2017")
    assert sum(len(image.boxes) for image in data.train) == len(content["annotations"]) - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.clear(), "categories"),
        (lambda content: content["images"].clear(), "0 images"),
        (lambda content: content["images"][0].update(file_name="../../a.jpg"), "outside"),
        (lambda content: content["images"][0].update(width=0), "is 0x"),
        (lambda content: content["annotations"][0].update(bbox=[1, 2, 3]), "four finite"),
        (lambda content: content["annotations"][0].update(category_id=99), "99"),
        (lambda content: content["categories"].pop(), "different categories|instances file"),
    ],
)
def test_a_wrong_coco_file_is_refused(scenes: Path, tmp_path: Path, change, message: str):
    folder = write_coco(scenes, tmp_path / "coco")
    path = folder / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        load_coco(folder, "train2017", "val2017")
