"""Annotations in VOC's layout as people have them: read and scored, or refused in one line, before any training."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from downstream import detect
from downstream.detection.annotated import check_set
from downstream.detection.report import scores_of
from downstream.detection.voc import load_voc
from downstream.detection.voc_ap import Detections
from pixpro.errors import UserError
from tests.helpers.downstream_programs import call, refusal

OBJECT = (
    "<object><name>{}</name>{}<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)
CELL = OBJECT.format("cell", "", 5, 5, 20, 20)


def write_voc(folder: Path, objects: dict[str, str], ending: str = ".jpg") -> Path:
    """A folder in VOC's layout: one 40 x 30 picture for each entry, all in train.txt and in test.txt."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for name, text in objects.items():
        xml = f"<annotation><size><width>40</width><height>30</height><depth>3</depth></size>{text}</annotation>"
        (folder / "Annotations" / f"{name}.xml").write_text(xml)
        kind = "PNG" if "png" in ending.lower() else "JPEG"
        Image.new("RGB", (40, 30), "grey").save(folder / "JPEGImages" / f"{name}{ending}", kind)
    for split in ("train", "test"):
        (folder / f"ImageSets/Main/{split}.txt").write_text("".join(f"{name}\n" for name in objects))
    return folder


def notes(folder: Path, **options: object) -> str:
    return "\n".join(check_set(load_voc(folder, "train", "test", **options)))


def found(boxes: list[tuple[float, ...]]) -> Detections:
    return Detections(np.array(boxes, np.float32), np.ones(len(boxes)), np.ones(len(boxes), np.int64))


@pytest.mark.parametrize("ending", [".png", ".JPG", ".jpeg", ".JPEG", ".PNG"])
def test_pictures_of_any_ending_are_found_and_scored(tmp_path: Path, ending: str):
    data = load_voc(write_voc(tmp_path / "own", {"a": CELL, "b": CELL}, ending), "train", "test")
    check_set(data)
    assert [image.path.name for image in data.test] == [f"a{ending}", f"b{ending}"]
    truth = {image.image_id: found([(4, 4, 20, 20)]) for image in data.test}
    assert scores_of(data, truth)["AP"] == pytest.approx(100)


@pytest.mark.parametrize("text", ["<difficult/>", "<difficult></difficult>", "<difficult> Unspecified</difficult>"])
def test_an_object_that_nobody_called_difficult_counts_and_it_is_said(tmp_path: Path, text: str):
    folder = write_voc(tmp_path / "own", {"a": OBJECT.format("cell", text, 5, 5, 20, 20) + CELL})
    assert "2 objects have an empty or unspecified <difficult>" in notes(folder)  # one in each split
    data = load_voc(folder, "train", "test")
    assert data.test[0].ignored.tolist() == [False, False]
    assert scores_of(data, {"a": found([(4, 4, 20, 20)])})["AP"] < 100  # both have to be found


@pytest.mark.parametrize(("text", "ignored"), [("1", True), ("0", False), ("true", True), ("No", False), ("2", True)])
def test_difficult_is_read_however_it_is_written(tmp_path: Path, text: str, ignored: bool):
    objects = OBJECT.format("cell", f"<difficult>{text}</difficult>", 5, 5, 20, 20) + CELL
    data = load_voc(write_voc(tmp_path / "own", {"a": objects}), "train", "test")
    assert data.test[0].ignored.tolist() == [ignored, False] and "difficult" not in "".join(data.notes)


@pytest.mark.parametrize(
    ("box", "words"),
    [((20, 5, 5, 20), "a 'cell' with xmin 20 > xmax 5"), ((5, 20.5, 9, 20), "ymin 20.5 > ymax 20")],
)
def test_corners_in_the_wrong_order_are_refused_with_their_number(tmp_path: Path, box: tuple, words: str):
    wrong = OBJECT.format("cell", "", *box)
    folder = write_voc(tmp_path / "own", {"a": CELL, "b": wrong, "c": wrong, "d": wrong})
    with pytest.raises(UserError, match=r"b\.xml .*exchange the two \(and 2 more\)") as error:
        load_voc(folder, "train", "test")
    assert words in str(error.value)


def test_boxes_that_nothing_can_find_are_said_and_still_counted(tmp_path: Path):
    outside = OBJECT.format("cell", "", 60, 5, 70, 20)
    folder = write_voc(tmp_path / "own", {"a": CELL + outside})
    assert "1 objects of the test lie outside their image" in notes(folder)
    data = load_voc(folder, "train", "test")
    assert len(data.train[0].boxes) == 1 and len(data.test[0].boxes) == 2
    assert scores_of(data, {"a": found([(4, 4, 20, 20)])})["AP"] < 100


def test_a_box_of_one_pixel_and_one_over_the_edge_are_ordinary(tmp_path: Path):
    objects = OBJECT.format("cell", "", 7, 7, 7, 7) + OBJECT.format("cell", "", 0, 0, 41, 31)
    folder = write_voc(tmp_path / "own", {"a": objects})
    assert "outside" not in notes(folder)
    assert load_voc(folder, "train", "test").train[0].boxes.tolist() == [[6, 6, 7, 7], [-1, -1, 41, 31]]


def test_a_class_without_test_objects_is_named_before_it_lowers_the_mean(tmp_path: Path):
    folder = write_voc(tmp_path / "own", {"a": CELL + OBJECT.format("stain", "", 1, 1, 9, 9), "b": CELL})
    (folder / "ImageSets/Main/test.txt").write_text("b\n")
    assert "the test has no object of 1 classes (stain): their AP counts as 0" in notes(folder)


@pytest.mark.parametrize("text", ["", OBJECT.format("cell", "<difficult>1</difficult>", 5, 5, 20, 20)])
def test_a_test_without_anything_that_counts_is_refused(tmp_path: Path, text: str):
    folder = write_voc(tmp_path / "own", {"a": CELL, "b": text})
    (folder / "ImageSets/Main/test.txt").write_text("b\n")
    with pytest.raises(UserError, match="none of the 1 test images has an object that counts"):
        notes(folder)


def test_only_the_classes_of_the_list_are_used_in_its_order(tmp_path: Path):
    stain = OBJECT.format("stain", "", 1, 1, 9, 9)
    folder = write_voc(tmp_path / "own", {"a": CELL + stain, "b": OBJECT.format("hair", "", 1, 1, 9, 9) + CELL})
    data = load_voc(folder, "train", "test", classes=["stain", "cell"])
    assert data.class_names == ["stain", "cell"] and [i.labels.tolist() for i in data.test] == [[2, 1], [2]]
    assert "2 objects of 1 other classes are left out (hair)" in data.notes  # one in each split


def damage_test_picture(folder: Path) -> None:
    path = folder / "JPEGImages/b.jpg"
    path.write_bytes(path.read_bytes()[:300])


def resize_training_picture(folder: Path) -> None:
    Image.new("RGB", (30, 40)).save(folder / "JPEGImages/a.jpg")


def no_picture(folder: Path) -> None:
    (folder / "JPEGImages/b.jpg").unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_test_picture, "b.jpg cannot be read"),
        (resize_training_picture, "a.jpg is 30x40, its annotation says 40x30"),
        (no_picture, "names 'b', but there is no file of that name"),
        (lambda folder: (folder / "Annotations/a.xml").unlink(), "names 'a.xml', but there is no file"),
        (lambda folder: (folder / "ImageSets/Main/train.txt").write_text("a.jpg\n"), "names 'a.jpg.xml', but there is"),
    ],
)
def test_the_program_says_it_before_it_trains(tmp_path: Path, capsys, damage: Callable[[Path], None], words: str):
    folder = write_voc(tmp_path / "own", {"a": CELL, "b": CELL})
    (folder / "ImageSets/Main/train.txt").write_text("a\n")
    (folder / "ImageSets/Main/test.txt").write_text("b\n")
    damage(folder)
    command = ["--data", folder, "--weights", "none", "--arch", "resnet18", "--output-dir", tmp_path / "run"]
    assert words in refusal(capsys, partial(call, detect), *command)
    assert not (tmp_path / "run").exists()
