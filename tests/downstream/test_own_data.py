"""Data of one's own: splits and JSON files are found as they lie, parts are fixed, class lists are read."""

import argparse
from pathlib import Path

import pytest

from downstream.common.arguments import class_names
from downstream.detection.coco import load_coco
from downstream.detection.own_data import PUBLISHED, Part, default_splits
from downstream.detection.recipes import RECIPES, scaled, scaling_line
from downstream.detection.voc import load_voc
from pixpro.errors import UserError
from pixpro.scenes.coco import write_coco


def lists(folder: Path, *splits: str) -> Path:
    (folder / "ImageSets/Main").mkdir(parents=True)
    for split in splits:
        (folder / f"ImageSets/Main/{split}.txt").touch()
    return folder


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (("train", "val", "trainval", "test"), ("trainval", "test")),
        (("train", "val", "test"), ("train", "test")),
        (("train", "val"), ("train", "val")),
    ],
)
def test_the_splits_of_a_folder_are_found_and_said(tmp_path: Path, there: tuple[str, ...], expected: tuple[str, str]):
    folder = lists(tmp_path / "cells", *there)
    *found, (note,) = default_splits(folder, "voc", None, None)
    assert tuple(found) == expected and f"training on {expected[0]}" in note
    assert default_splits(folder, "voc", "mine", "test") == ("mine", "test", [])
    *found, _ = default_splits(tmp_path, "voc", None, None)  # the one folder inside
    assert found == [f"cells/{split}" for split in expected]


def test_the_published_splits_are_taken_where_they_are(tmp_path: Path):
    lists(tmp_path / "VOC2007", "trainval", "test")
    lists(tmp_path / "VOC2012", "trainval")
    assert default_splits(tmp_path, "voc", None, None) == (*PUBLISHED["voc"], [])
    assert default_splits(tmp_path / "nothing", "voc", None, None) == (*PUBLISHED["voc"], [])


def moved(coco: Path, names: dict[str, str]) -> Path:
    """The folder with its JSON files and its folders of images under other names."""
    for old, new in names.items():
        (coco / new).parent.mkdir(parents=True, exist_ok=True)
        (coco / old).rename(coco / new)
    return coco


LAYOUTS = {
    "renamed": {
        "annotations/instances_train2017.json": "annotations/cells_train_v3.json",
        "annotations/instances_val2017.json": "annotations/cells_val_v3.json",
        "train2017": "cells_train_v3",
        "val2017": "cells_val_v3",
    },
    "beside their images": {
        "annotations/instances_train2017.json": "train2017/_annotations.coco.json",
        "annotations/instances_val2017.json": "val2017/_annotations.coco.json",
        "train2017": "train",
        "val2017": "valid",
    },
    "images in a folder of their own": {
        "annotations/instances_train2017.json": "train.json",
        "annotations/instances_val2017.json": "test.json",
        "train2017": "images/train",
        "val2017": "images/test",
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_json_files_of_any_name_are_found_with_their_images(scenes: Path, tmp_path: Path, layout: str):
    before = load_coco(write_coco(scenes, tmp_path / "coco"), *PUBLISHED["coco"])
    folder = moved(write_coco(scenes, tmp_path / "own"), LAYOUTS[layout])
    train, test, notes = default_splits(folder, "coco", None, None)
    data = load_coco(folder, train, test)
    assert len(notes) == 1 and [image.image_id for image in data.train] == [image.image_id for image in before.train]
    assert [image.boxes.tolist() for image in data.test] == [image.boxes.tolist() for image in before.test]
    assert all(image.path.is_relative_to(folder) and image.path.is_file() for image in data.train + data.test)


def test_several_files_of_a_kind_have_to_be_chosen_from(scenes: Path, tmp_path: Path):
    folder = moved(write_coco(scenes, tmp_path / "own"), LAYOUTS["renamed"])
    (folder / "annotations/cells_train_v2.json").write_text("{}")
    with pytest.raises(UserError, match=r"cells_train_v2.json and .*cells_train_v3.json; name the files with"):
        default_splits(folder, "coco", None, None)
    with pytest.raises(UserError, match=r"--train-split and --test-split take annotations/cells_"):
        load_coco(folder, "train2017", "val2017")
    chosen = "annotations/cells_train_v3.json", "annotations/cells_val_v3.json"
    assert load_coco(folder, *chosen).train


def test_a_part_is_the_same_every_time_and_keeps_the_classes_of_the_whole(scenes: Path, tmp_path: Path):
    folder, part = write_coco(scenes, tmp_path / "coco"), Part(0.34, seed=3)
    splits = {load_coco: (folder, *PUBLISHED["coco"]), load_voc: (scenes, "trainval", "test")}
    for load, where in splits.items():
        whole, data = load(*where), load(*where, part=part)
        chosen = part.chosen(6)
        assert [image.image_id for image in data.train] == [whole.train[place].image_id for place in chosen]
        assert f"{len(chosen)} of 6 training images (34 %, seed 3)" in "".join(data.notes)
        assert data.class_names == whole.class_names and len(data.test) == len(whole.test)
    assert len(Part(0.01).chosen(118_287)) == 1183
    assert Part(0.1, 1).chosen(1000) != Part(0.1, 2).chosen(1000)


def test_the_smaller_part_lies_in_the_larger_and_no_library_can_change_either():
    # the five of 0 to 49 whose `printf '0 N' | sha256sum` come first; others would make old scores incomparable
    assert Part(0.1, seed=0).chosen(50) == [6, 14, 34, 38, 44]
    assert set(Part(0.01, 5).chosen(5000)) < set(Part(0.1, 5).chosen(5000))


@pytest.mark.parametrize(
    ("share", "iterations", "drops"), [(0.01, 9000, (6000, 8000)), (0.1, 90_000, (60_000, 80_000))]
)
def test_a_part_has_its_own_schedule(share: float, iterations: int, drops: tuple[int, int]):
    used = scaled(RECIPES["coco"], batch=16, scale=Part(share).length)
    assert (used.iterations, used.drops, used.warmup, used.lr) == (iterations, drops, 1000, 0.02)


def test_a_given_length_and_rate_stand_and_are_said():
    used = scaled(RECIPES["voc"], batch=4, iterations=1200, lr=0.001)
    assert (used.iterations, used.lr, used.drops, used.warmup) == (1200, 0.001, (900, 1100), 300)
    line = scaling_line(RECIPES["voc"], used, 1.0)
    assert "0.001 (as given)" in line and "1200 (as given)" in line
    assert "as given" not in scaling_line(RECIPES["voc"], scaled(RECIPES["voc"], batch=4), 1.0)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "no class names"), (b"cat\ncat\n", "twice"), (b"a\x1b[2J\n", "unprintable"), (b"\xff\xfe\xff", "cannot be")],
)
def test_a_wrong_list_of_classes_is_named(tmp_path: Path, content: bytes, words: str):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(argparse.ArgumentTypeError, match=words):
        class_names(str(tmp_path / "names.txt"))
    with pytest.raises(argparse.ArgumentTypeError, match="cannot be read"):
        class_names(str(tmp_path / "missing.txt"))


def test_a_list_of_classes_is_read_in_its_order(tmp_path: Path):
    (tmp_path / "names.txt").write_bytes("\ufefftree\r\n\r\n traffic light \ncar".encode())
    assert class_names(str(tmp_path / "names.txt")) == ["tree", "traffic light", "car"]
