"""The data that detectron2's scripts need is looked for before a run, and classes of one's own are read from it."""

import argparse
import json
import sys
from pathlib import Path

import pytest

from downstream.finetuning import command as finetune
from downstream.finetuning.own_data import find_own_data, is_benchmark
from downstream.finetuning.paths import missing_paths, present
from pixpro.errors import UserError
from pixpro.scenes import write_scenes
from pixpro.scenes.drawing import CLASSES
from tests.helpers.detection_data import write_detection_data

CONFIGS = Path(__file__).resolve().parents[2] / "downstream" / "configs"
VOC = ("voc_2007_trainval", "voc_2012_trainval", "voc_2007_test")
COCO = ("coco_2017_train", "coco_2017_val")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder as DETECTRON2_DATASETS wants it, with sample scenes as VOC and COCO."""
    return write_detection_data(tmp_path_factory.mktemp("data"))


def test_missing_data_is_found_and_nothing_is_missing_from_the_scenes(tmp_path, data):
    assert missing_paths(data, (*VOC, *COCO)) == []
    absent = [str(path.relative_to(tmp_path)) for path in missing_paths(tmp_path, ("voc_2007_test", "coco_2017_val"))]
    assert absent == [
        "VOC2007/ImageSets/Main/test.txt",
        "VOC2007/Annotations",
        "VOC2007/JPEGImages",
        "coco/annotations/instances_val2017.json",
        "coco/val2017",
    ]


def test_what_a_run_needs_is_looked_for_as_its_command_line_says(monkeypatch, tmp_path, data):
    def said(*arguments):
        monkeypatch.setattr(sys, "argv", ["train_voc.py", *arguments])
        lines = finetune.missing(finetune.parse("", CONFIGS / "voc_c4_24k.yaml"), VOC)
        return [line for line in lines if "is not installed" not in line]

    monkeypatch.setenv("DETECTRON2_DATASETS", str(data))
    absent = str(tmp_path / "absent.pkl")
    assert said("--weights", "detectron2://ImageNetPretrained/MSRA/R-50.pkl") == []
    (line,) = said("--weights", absent)
    assert "no weights" in line and absent in line
    assert said("MODEL.WEIGHTS", str(CONFIGS / "base_c4.yaml"), "--weights", absent) == []  # the later source wins
    assert said("--weights", absent, "--resume") == []  # it goes on from its own checkpoint
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    (line,) = said("DATASETS.TRAIN", "('coco_2017_val',)", "DATASETS.TEST", "coco_2017_val")
    assert "no data" in line and "folder that holds coco " in line and "1 more paths are missing" in line
    assert said("DATASETS.TRAIN", "('my_own',)", "DATASETS.TEST", "7") == []


def own(layout, root, train, test, **options):
    """What train_LAYOUT.py makes of the data below root."""
    settings = {"data": None, "train_split": None, "test_split": None, "classes": None, "fraction": None}
    args = argparse.Namespace(layout=layout, **{**settings, "fraction_seed": 0, **options})
    return find_own_data(args, root, train, test)


def test_classes_of_the_scenes_are_read_from_either_layout(data):
    assert own("coco", data, COCO[:1], COCO[1:]).images.class_names == list(CLASSES)
    assert own("voc", data, VOC[:2], VOC[2:]).images.class_names == sorted(CLASSES)


def test_the_real_voc_keeps_its_own_classes(tmp_path):
    for folder, split in (("VOC2007", "trainval"), ("VOC2012", "trainval"), ("VOC2007", "test")):
        (tmp_path / folder / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / f"ImageSets/Main/person_{split}.txt").touch()
    assert is_benchmark(tmp_path, VOC) is True and own("voc", tmp_path, VOC[:2], VOC[2:]) is None


def test_the_real_coco_keeps_its_own_classes(tmp_path):
    (tmp_path / "coco/annotations").mkdir(parents=True)
    missing = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # numbers that COCO left unused
    categories = [{"id": number, "name": str(number)} for number in range(1, 91) if number not in missing]
    content = json.dumps({"categories": categories})
    (tmp_path / "coco/annotations/instances_val2017.json").write_text(content)
    (tmp_path / "coco/annotations/instances_train2017.json").write_text("x" * 10_000)  # would be 450 MB: not read
    assert len(categories) == 80 and own("coco", tmp_path, COCO[:1], COCO[1:]) is None
    for entry in categories:
        entry["id"] -= 1  # eighty classes of somebody else's
    (tmp_path / "coco/annotations/instances_val2017.json").write_text(json.dumps({"categories": categories}))
    assert is_benchmark(tmp_path, COCO) is False


@pytest.mark.parametrize("damage", ["no annotation", "no categories"])
def test_data_that_detectron2_would_stumble_over_is_named(tmp_path, damage):
    scenes = write_scenes(tmp_path / "VOC2007", 8)
    if damage == "no annotation":
        next((scenes / "Annotations").iterdir()).unlink()
        layout, names, expected = "voc", ("voc_2007_trainval", "voc_2007_test"), "there is no file of that name"
    else:
        (tmp_path / "coco/annotations").mkdir(parents=True)
        (tmp_path / "coco/annotations/instances_val2017.json").write_text("{}")
        layout, names, expected = "coco", ("coco_2017_val", "coco_2017_val"), "cannot read the annotations"
    with pytest.raises(UserError, match=expected):
        own(layout, tmp_path, names[:1], names[1:])


def test_a_folder_of_any_name_is_taken_as_it_is(tmp_path):
    folder = write_scenes(tmp_path / "blood cells", 8)
    found = own("voc", tmp_path / "nothing", VOC[:2], VOC[2:], data=folder)
    assert found.images.class_names == sorted(CLASSES) and "no split was named" in found.notes[0]
    assert [image.image_id for image in found.images.test] == (folder / "ImageSets/Main/test.txt").read_text().split()


def test_one_folder_of_ones_own_does_without_voc2012_but_voc_itself_does_not(tmp_path):
    lists = write_scenes(tmp_path / "VOC2007", 8) / "ImageSets/Main"
    assert present(tmp_path, VOC) == ("voc_2007_trainval", "voc_2007_test")
    (lists / "person_trainval.txt").touch()
    assert present(tmp_path, VOC) == VOC
