"""Masks as people have them: their classes are found and scored, or they are refused in one line, before training."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from downstream import segment
from downstream.segmentation import options
from pixpro.errors import UserError
from tests.helpers.downstream_programs import call, refusal


def write_masks(folder: Path, train: list[np.ndarray], test: list[np.ndarray], ending: str = ".jpg") -> Path:
    """A folder in VOC's segmentation layout with these masks, (H, W) uint8, and grey pictures of their size."""
    for part in ("SegmentationClass", "JPEGImages", "ImageSets/Segmentation"):
        (folder / part).mkdir(parents=True)
    for split, masks in (("train", train), ("test", test)):
        names = [f"{split}{number}" for number in range(len(masks))]
        for name, mask in zip(names, masks, strict=True):
            Image.fromarray(np.asarray(mask, np.uint8)).save(folder / "SegmentationClass" / f"{name}.png")
            picture = Image.new("RGB", np.shape(mask)[::-1], "grey")
            picture.save(folder / "JPEGImages" / f"{name}{ending}", "JPEG")
        (folder / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names) + "\n")
    return folder


def checked(folder: Path, *words: str) -> tuple[argparse.Namespace, str]:
    """The settings of a run on the folder after its checks, and what was said."""
    command = ["--data", str(folder), "--weights", "none", "--arch", "resnet18", "--output-dir", str(folder / "run")]
    args = options.parse("", [*command, *words])
    return args, "\n".join(options.check(args))


def stripes(*values: int) -> np.ndarray:
    return np.repeat(np.array(values, np.uint8), 8)[None].repeat(20, axis=0)


def test_masks_of_0_and_255_are_refused_with_the_way_out(tmp_path: Path):
    folder = write_masks(tmp_path / "own", [stripes(0, 255)], [stripes(255, 0)])
    with pytest.raises(UserError, match=r"hold one class \(0\): every score would be 100 %.* give --void none"):
        checked(folder)
    args, said = checked(folder, "--void", "none")
    assert args.mask_values == [0, 255] and args.class_names == ["0", "255"] and "void" not in said
    assert options.segmentation_set(args).classes[[0, 255]].tolist() == [0, 1]


def test_the_program_refuses_them_too(tmp_path: Path, capsys):
    folder = write_masks(tmp_path / "own", [stripes(0, 255)], [stripes(255, 0)])
    command = ["--data", folder, "--weights", "none", "--arch", "resnet18", "--output-dir", tmp_path / "run"]
    assert "--void none" in refusal(capsys, partial(call, segment), *command)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("values", [(0, 1, 2, 255), (0, 85, 170, 255), (3, 9, 200)])
def test_the_values_that_occur_are_the_classes(tmp_path: Path, values: tuple[int, ...]):
    folder = write_masks(tmp_path / "own", [stripes(*values)], [stripes(*values)], ".JPG")
    args, said = checked(folder)
    assert args.mask_values == [value for value in values if value != 255]
    table = options.segmentation_set(args).classes
    assert table[list(values)].tolist() == [255 if v == 255 else n for n, v in enumerate(values)]
    assert (np.delete(table, [*values, 255]) == -1).all() and "no split was named: training on train" in said


def test_what_the_score_will_lack_is_said(tmp_path: Path):
    folder = write_masks(tmp_path / "own", [stripes(0, 1, 2)], [stripes(0, 3, 255, 255, 255)])
    _, said = checked(folder)
    assert "the test masks have none of 2 classes (1, 2): they are not scored" in said
    assert "the training masks have none of 1 classes (3): they cannot be learnt" in said
    assert "60 % of the test's pixels are void (255)" in said and "--void none" in said


def rgb_mask(folder: Path) -> None:
    Image.new("RGB", (16, 20)).save(folder / "SegmentationClass/test0.png")


def larger_mask(folder: Path) -> None:
    Image.fromarray(stripes(0, 1, 0)).save(folder / "SegmentationClass/train0.png")


def cut_picture(folder: Path) -> None:
    path = folder / "JPEGImages/test0.jpg"
    path.write_bytes(path.read_bytes()[:300])


def no_mask(folder: Path) -> None:
    (folder / "SegmentationClass/test0.png").unlink()


def void_test(folder: Path) -> None:
    Image.fromarray(stripes(255, 255)).save(folder / "SegmentationClass/test0.png")


@pytest.mark.parametrize(
    ("damage", "words", "message"),
    [
        (rgb_mask, [], "test0.png is no mask: expected a PNG of one byte per pixel"),
        (larger_mask, [], r"train0.png is \(24, 20\), its image \(16, 20\)"),
        (cut_picture, [], "test0.jpg cannot be read"),
        (no_mask, [], "names 'test0', but there is no file of that name in .*SegmentationClass"),
        (void_test, [], "no pixel of the test masks counts"),
        (lambda folder: None, ["--num-classes", "1"], "has the value 1 .*--num-classes"),
        (lambda folder: None, ["--num-classes", "2", "--void", "none"], "leave out --num-classes"),
        (lambda folder: None, ["--test-split", "val"], "no split file"),
    ],
)
def test_what_cannot_be_scored_is_refused(tmp_path: Path, damage: Callable, words: list[str], message: str):
    folder = write_masks(tmp_path / "own", [stripes(0, 1)], [stripes(1, 0)])
    damage(folder)
    with pytest.raises(UserError, match=message) as error:
        checked(folder, *words)
    assert "\n" not in str(error.value)


def test_names_of_classes_come_from_a_file(tmp_path: Path):
    folder = write_masks(tmp_path / "own", [stripes(0, 1, 2)], [stripes(0, 1, 2)])
    (tmp_path / "names.txt").write_text("road\nsky\n\ntree\n")
    args, _ = checked(folder, "--classes", str(tmp_path / "names.txt"))
    assert args.class_names == ["road", "sky", "tree"] and args.mask_values == [0, 1, 2]
    (tmp_path / "names.txt").write_text("road\nsky\n")
    with pytest.raises(UserError, match="has the value 2"):
        checked(folder, "--classes", str(tmp_path / "names.txt"))
