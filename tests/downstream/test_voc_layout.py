"""Detection data in VOC's layout are read as it defines them, and refused when wrong."""

from pathlib import Path

import pytest
from PIL import Image

from downstream.detection.voc import load_voc
from pixpro.errors import UserError

XML = """<annotation><size><width>40</width><height>30</height><depth>3</depth></size>{}</annotation>"""
OBJECT = (
    "<object><name>{}</name>{}<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


def write_voc(folder: Path, annotations: dict[str, str]) -> Path:
    """A folder in VOC's layout: one grey 40 x 30 image per annotation, all in train.txt."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for name, xml in annotations.items():
        (folder / "Annotations" / f"{name}.xml").write_text(xml)
        Image.new("RGB", (40, 30), "grey").save(folder / "JPEGImages" / f"{name}.jpg")
    (folder / "ImageSets/Main/train.txt").write_text("".join(f"{name}\n" for name in annotations))
    return folder


def test_voc_boxes_start_at_zero_and_difficult_ones_are_marked(tmp_path: Path):
    objects = OBJECT.format("dog", "", 1, 1, 40, 30) + OBJECT.format("cat", "<difficult>1</difficult>", 3.5, 4, 9, 10)
    data = load_voc(
        write_voc(tmp_path / "VOC2007", {"a": XML.format(objects)}).parent, "VOC2007/train", "VOC2007/train"
    )
    assert data.class_names == ["cat", "dog"]  # VOC's order
    (image,) = data.train
    assert image.boxes.tolist() == [[0, 0, 40, 30], [2.5, 3, 9, 10]]
    assert image.labels.tolist() == [2, 1] and image.ignored.tolist() == [False, True]
    assert (image.width, image.height, image.image_id) == (40, 30, "a")


def test_detectron2_names_of_splits_lead_to_their_folders(tmp_path: Path):
    for year, name in (("2007", "a"), ("2012", "b")):
        folder = write_voc(tmp_path / f"VOC{year}", {name: XML.format(OBJECT.format("cat", "", 1, 1, 9, 9))})
        (folder / "ImageSets/Main/train.txt").rename(folder / "ImageSets/Main/trainval.txt")
    data = load_voc(tmp_path, "voc_2007_trainval+voc_2012_trainval", "voc_2012_trainval")
    assert [image.image_id for image in data.train] == ["a", "b"]
    assert [image.image_id for image in data.test] == ["b"]


def test_an_image_without_a_filled_box_is_tested_but_not_trained_on(tmp_path: Path):
    annotations = {"a": XML.format(OBJECT.format("cat", "", 1, 1, 9, 9)), "b": XML.format("")}
    annotations["c"] = XML.format(OBJECT.format("cat", "", 41, 1, 60, 9))  # outside
    data = load_voc(write_voc(tmp_path, annotations), "train", "train")
    assert [image.image_id for image in data.train] == ["a"]
    assert [image.image_id for image in data.test] == ["a", "b", "c"]


BOMB = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><annotation>&c;</annotation>'


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<annotation>", "not an annotation"),
        (BOMB, "document type"),
        (BOMB.replace("<!DOCTYPE", '<?xml version="1.0"?>\n<!DOCTYPE'), "document type"),
        ("<annotation></annotation>", "width"),
        (XML.format(OBJECT.format("cat", "", "nan", 1, 9, 9)), "finite"),
        (XML.format(OBJECT.format("cat", "", "x", 1, 9, 9)), "could not convert"),
        (XML.format(OBJECT.format("", "", 1, 1, 9, 9)), "name"),
        (XML.format("").replace("40", "-4"), "-4x30"),
        (XML.format(""), "none of its 1 images has an object"),
    ],
)
def test_a_wrong_annotation_is_named_with_its_fault(tmp_path: Path, xml: str, message: str):
    with pytest.raises(UserError, match=message) as error:
        load_voc(write_voc(tmp_path, {"a": xml}), "train", "train")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        ("", "lists no images"),
        ("../a\n", "one image name per line"),
        ("a 1\n", "one image name per line"),
        ("b\n", "there is no file"),
        ("a\na\n", "twice"),
    ],
)
def test_a_wrong_split_file_is_refused(tmp_path: Path, listing: str, message: str):
    folder = write_voc(tmp_path, {"a": XML.format(OBJECT.format("cat", "", 1, 1, 9, 9))})
    (folder / "ImageSets/Main/train.txt").write_text(listing)
    with pytest.raises(UserError, match=message):
        load_voc(folder, "train", "train")


def test_a_class_that_only_the_test_shows_is_refused(tmp_path: Path):
    write_voc(tmp_path / "one", {"a": XML.format(OBJECT.format("cat", "", 1, 1, 9, 9))})
    write_voc(tmp_path / "two", {"a": XML.format(OBJECT.format("yak", "", 1, 1, 9, 9))})
    with pytest.raises(UserError, match="yak"):
        load_voc(tmp_path, "one/train", "two/train")
