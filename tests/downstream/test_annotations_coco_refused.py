"""Annotations in COCO's format that could mean two things, or nothing, are refused in one line before training."""

from collections.abc import Callable
from pathlib import Path

import pytest

from downstream.detection.annotated import check_set
from downstream.detection.coco import load_coco
from pixpro.errors import UserError
from pixpro.scenes.coco import write_coco
from tests.helpers.coco_edits import change, without

pytest.importorskip("pycocotools.coco")


@pytest.fixture
def coco(scenes: Path, tmp_path: Path) -> Path:
    return write_coco(scenes, tmp_path / "coco")


def second_image_of_an_id(content: dict) -> None:
    content["images"].append({**content["images"][0], "file_name": "other.jpg"})


def first(kind: str, **fields: object) -> Callable[[dict], None]:
    return lambda content: content[kind][0].update(fields)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (second_image_of_an_id, "two images have the id 7: '000007.jpg' and 'other.jpg'"),
        (lambda content: content["images"].append({**content["images"][0], "id": 99}), "are both '000007.jpg'"),
        (lambda content: content["categories"].append({"id": 1, "name": "again"}), "two categories have the id 1"),
        (first("annotations", bbox=[5, 5, -3, 4]), "is -3x4; expected a width and height above 0"),
        (first("annotations", bbox=[5, 5, float("nan"), 4]), "not four finite numbers"),
        (first("annotations", bbox=None), "instances file"),
        (first("annotations", category_id=77), "has the category 77"),
        (first("annotations", image_id=None), "is no id"),
        (without("bbox"), "'bbox' is missing"),
        (without("image_id"), "'image_id' is missing"),
        (without("category_id"), "'category_id' is missing"),
        (without("id"), "'id' is missing"),
        (first("images", file_name="gone.jpg"), "names 'gone.jpg', but there is no file"),
        (first("images", width=10**400), "instances file"),
        (first("images", width=17), "its annotation says 17x"),
        (lambda content: content["annotations"].clear(), "has an object that counts"),
        (lambda content: [a.update(iscrowd=1) for a in content["annotations"]], "has an object that counts"),
        (lambda content: content["categories"][0].update(name="\x1b[2J"), "category name"),
        (lambda content: content["categories"][0].pop("name"), "'name' is missing"),
    ],
)
def test_what_could_mean_two_things_is_refused_in_one_line_before_training(coco: Path, edit, words: str):
    change(coco, edit)
    with pytest.raises(UserError) as error:
        check_set(load_coco(coco, "train2017", "val2017"))
    assert words in str(error.value) and "\n" not in str(error.value) and str(error.value).isprintable()


@pytest.mark.parametrize("text", ["", "[]", "{", "[[[[" * 100_000, '{"images": 1}', '"x"', "\x00"])
def test_a_file_that_is_no_coco_is_named(coco: Path, text: str):
    (coco / "annotations/instances_val2017.json").write_text(text)
    with pytest.raises(UserError, match=r"instances_val2017\.json is not a COCO instances file"):
        load_coco(coco, "train2017", "val2017")


def test_a_class_that_only_the_test_shows_is_refused_unless_it_is_not_asked_for(coco: Path):
    def edit(content: dict) -> None:
        content["categories"].append({"id": 50, "name": "yak"})
        content["annotations"][0]["category_id"] = 50

    change(coco, edit)
    with pytest.raises(UserError, match="different categories: the first lacks 'yak'"):
        load_coco(coco, "train2017", "val2017")
    known = [category["name"] for category in change(coco, lambda content: None, "train2017")["categories"]]
    data = load_coco(coco, "train2017", "val2017", classes=known)
    assert any("yak" in note for note in data.notes) and data.class_names == known
    assert all(item["category_id"] <= len(known) for item in data.truth["annotations"])
