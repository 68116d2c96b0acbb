"""Finished runs of detect.py and segment.py are tested again to the same scores, and predict for any image."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from downstream import detect, segment
from downstream.detection.data import read_pixels
from downstream.detection.report import draw_detections
from downstream.detection.voc import load_voc
from downstream.detection.voc_ap import Detections
from pixpro.checkpoints.checkpoint import LAST
from tests.helpers.downstream_programs import call, refusal, results

COMMON = "--weights none --arch resnet18 --batch-size 2 --iterations 1 --workers 0 --pictures 1"
SMALL = {detect: "--train-sizes 64 --test-size 64 --regions 8 --test-proposals 5 --precise-bn 1", segment: "--crop 48"}
PROGRAMS = pytest.mark.parametrize("program", [detect, segment], ids=["detect", "segment"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> dict:
    """A folder with a finished run of one iteration of each program; no split was named."""
    folders = {}
    for program, small in SMALL.items():
        folders[program] = tmp_path_factory.mktemp("runs") / "run"
        command = ["--data", scenes, *COMMON.split(), *small.split(), "--output-dir", folders[program]]
        assert call(program, *command) == 0
    return folders


@PROGRAMS
def test_a_run_tested_again_has_the_same_scores(runs: dict, scenes: Path, tmp_path: Path, capsys, program):
    weights = runs[program] / LAST
    command = ["--data", scenes, "--weights", weights, "--eval-only", "--output-dir", tmp_path / "again"]
    assert call(program, *command) == 0
    assert "no split was named: training on trainval, testing on test" in capsys.readouterr().out
    again, before = results(tmp_path / "again"), results(runs[program])
    assert again["scores"] == before["scores"] and again["settings"]["backbone"] == "resnet18"
    assert not (tmp_path / "again" / LAST).exists() and (tmp_path / "again/pictures").is_dir()


def test_a_test_needs_no_training_split(runs: dict, scenes: Path, tmp_path: Path):
    alone = tmp_path / "alone"
    shutil.copytree(scenes, alone)
    for split in ("train", "trainval", "val"):
        for task in ("Main", "Segmentation"):
            (alone / "ImageSets" / task / f"{split}.txt").unlink(missing_ok=True)
    for program, folder in runs.items():
        command = ["--data", alone, "--test-split", "test", "--weights", folder / LAST, "--eval-only"]
        assert call(program, *command, "--output-dir", tmp_path / program.__name__) == 0
        assert results(tmp_path / program.__name__)["scores"] == results(folder)["scores"]


@PROGRAMS
def test_predict_leaves_a_picture_and_a_record_of_each_image(runs: dict, scenes: Path, tmp_path: Path, program):
    images = sorted((scenes / "JPEGImages").iterdir())[:2]
    other = tmp_path / "other"
    other.mkdir()
    shutil.copyfile(images[0], other / images[0].name)  # the same name in another folder
    command = ["predict", *images, other, "--weights", runs[program] / LAST, "--output-dir", tmp_path / "out"]
    extra = ["--threshold", 0] if program is detect else []
    assert call(program, *command, *extra) == 0
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    assert content["classes"] == results(runs[program])["settings"]["class_names"]
    records = content["images"]
    assert [record["file"] for record in records] == [str(p) for p in (*images, other / images[0].name)]
    assert len({record["picture"] for record in records}) == 3
    for record in records:
        with Image.open(tmp_path / "out" / record["picture"]) as picture, Image.open(record["file"]) as original:
            assert picture.size == original.size == (record["width"], record["height"])
        if program is detect:
            for found in record["objects"]:
                x0, y0, x1, y1 = found["box"]
                assert 0 <= x0 < x1 <= record["width"] and 0 <= y0 < y1 <= record["height"]
                assert found["class"] in content["classes"] and 0.05 < found["score"] <= 1
        else:
            assert sum(record["shares"].values()) == pytest.approx(1, abs=1e-3)
            with Image.open(tmp_path / "out" / record["mask"]) as mask:
                values = set(torch.frombuffer(bytearray(mask.tobytes()), dtype=torch.uint8).tolist())
            known = results(runs[program])["settings"]["mask_values"]
            shown = {known[content["classes"].index(name)] for name, share in record["shares"].items() if share > 0.001}
            assert shown <= values <= set(known)


@pytest.mark.parametrize("words", [["predict", "IMAGE"], ["--data", "DATA", "--eval-only"]], ids=["predict", "test"])
@PROGRAMS
def test_another_programs_checkpoint_is_refused_in_one_line(runs: dict, scenes: Path, tmp_path, capsys, program, words):
    other = segment if program is detect else detect
    torch.save(torch.nn.Linear(1, 1).state_dict(), tmp_path / "weights.pth")
    there = {"IMAGE": next((scenes / "JPEGImages").iterdir()), "DATA": scenes}
    for weights, message in (
        (runs[other] / LAST, f"was not made by {program.__name__.rpartition('.')[2]}.py"),
        (tmp_path / "weights.pth", "holds no training state"),
        (tmp_path / "missing", "no checkpoint at"),
    ):
        command = [*(there.get(word, word) for word in words), "--weights", weights, "--output-dir", tmp_path / "out"]
        assert message in refusal(capsys, partial(call, program), *command)
        assert not (tmp_path / "out").exists()


def test_an_image_that_is_not_there_or_not_one_is_named(runs: dict, tmp_path: Path, capsys):
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty").mkdir()
    for image, message in (("gone.jpg", "no image"), ("text.jpg", "cannot be read"), ("empty", "holds no images")):
        command = ["predict", tmp_path / image, "--weights", runs[detect] / LAST, "--output-dir", tmp_path / "out"]
        assert message in refusal(capsys, partial(call, detect), *command)


def test_boxes_are_drawn_where_they_are_and_only_above_the_threshold(scenes: Path):
    image = load_voc(scenes, "trainval", "test").test[0]
    pixels = read_pixels(image)
    box = torch.tensor([[10.0, 12.0, 60.0, 50.0], [70.0, 10.0, 90.0, 30.0]]).numpy()
    found = Detections(box, torch.tensor([0.9, 0.2]).numpy(), torch.tensor([1, 2]).numpy())
    drawn = torch.from_numpy(pixels.copy()).int()
    shown = torch.from_numpy(np.array(draw_detections(pixels, found, ["a", "b"], 0.5))).int()
    changed = (shown != drawn).any(dim=2)
    assert shown[30, 10].tolist() == [230, 25, 75] and shown[50, 40].tolist() == [230, 25, 75]  # left and lower edge
    assert not changed[30:48, 14:57].any()  # the label is in the upper corner
    assert not changed[:, 70:].any()
