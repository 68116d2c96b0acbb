"""detect.py --detector fpn as a program: boxes and masks, any backbone, exact resume, tested again, used on images."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as codes

from downstream import detect
from downstream.detection.coco import load_coco
from downstream.detection.data import TrainImages
from pixpro.checkpoints.checkpoint import LAST
from pixpro.scenes.coco import write_coco
from tests.helpers.downstream_programs import call, refusal, results, state

SMALL = "--detector fpn --weights none --arch resnet18 --batch-size 2 --iterations 2 --train-sizes 64 --test-size 64"
SMALL += " --regions 8 --workers 0 --test-proposals 5 --precise-bn 1 --log-every 1 --save-every 1 --pictures 1"


@pytest.fixture(scope="module")
def coco(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(scenes, tmp_path_factory.mktemp("coco") / "coco")


@pytest.fixture
def program(coco: Path) -> Callable[..., int]:
    """Runs detect.py in this process with small settings on the scenes in COCO's layout, plus the given options."""
    return partial(call, detect, "--data", coco, "--layout", "coco", *SMALL.split())


def test_masks_are_trained_scored_resumed_exactly_tested_again_and_predicted(program, coco, scenes, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert program("--output-dir", whole) == 0
    assert {"AP", "mask AP"} <= results(whole)["scores"].keys()
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert all(row["loss_mask"] > 0 for row in rows)
    assert "Mask R-CNN R50-FPN" in capsys.readouterr().out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detect, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            program("--output-dir", parts)  # ended after its first checkpoint and the last iteration
    assert program("--output-dir", parts, "--resume", "auto") == 0
    first, second = (state(folder)["model"] for folder in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)

    again = ["--data", coco, "--layout", "coco", "--weights", whole / LAST, "--eval-only"]
    options = ["--workers", "0", "--output-dir", tmp_path / "again", "--pictures", "0"]
    assert call(detect, *again, *options) == 0
    assert results(tmp_path / "again")["scores"] == results(whole)["scores"]

    image = next(scenes.rglob("*.jpg"))
    words = ["predict", image, "--weights", whole / LAST, "--output-dir", tmp_path / "found", "--threshold", "0"]
    assert call(detect, *words) == 0
    (record,) = json.loads((tmp_path / "found" / "predictions.json").read_text())["images"]
    for found in record["objects"]:
        shape = codes.decode({**found["mask"], "counts": found["mask"]["counts"].encode()}).shape
        assert shape == (record["height"], record["width"])


def test_boxes_alone_on_request_and_on_vocs_layout(program, scenes, tmp_path):
    assert program("--no-masks", "--output-dir", tmp_path / "boxes") == 0
    assert "mask AP" not in results(tmp_path / "boxes")["scores"]
    voc = ["--data", scenes, "--train-split", "trainval", "--test-split", "test", *SMALL.split()]
    assert call(detect, *voc, "--output-dir", tmp_path / "voc") == 0
    assert "AP50" in results(tmp_path / "voc")["scores"]


def test_masks_follow_their_pixels_when_resized_and_flipped(coco):
    images = load_coco(coco, "train2017", "val2017", masks=True).train
    samples = [TrainImages(images, short_sides=(96,), max_size=200, seed=seed)[0, 0] for seed in range(6)]
    flips = {int(np.allclose(samples[0][1]["boxes"], target["boxes"])) for _, target in samples}
    assert flips == {0, 1}
    for pixels, target in samples:
        assert target["masks"].shape == (len(target["boxes"]), *pixels.shape[1:])
        for mask, (x0, y0, x1, y1) in zip(target["masks"].numpy(), target["boxes"].tolist(), strict=True):
            y, x = np.nonzero(mask)
            if len(x) > 20:  # what is hidden or tiny has few pixels
                assert abs(x.min() - x0) < 2.5 and abs(x.max() + 1 - x1) < 2.5
                assert abs(y.min() - y0) < 2.5 and abs(y.max() + 1 - y1) < 2.5


def test_an_object_without_a_mask_is_named_before_the_first_iteration(coco, program, tmp_path, capsys):
    for path in (coco / "annotations").glob("*.json"):
        contents = json.loads(path.read_text())
        contents["annotations"][0]["segmentation"] = []
        (tmp_path / path.name).write_text(json.dumps(contents))
    train, test = (tmp_path / f"instances_{split}2017.json" for split in ("train", "val"))
    words = ("--train-split", train, "--test-split", test, "--output-dir", tmp_path / "run")
    line = refusal(capsys, program, *words)
    assert "no mask" in line and "--no-masks" in line
    assert not (tmp_path / "run").exists()
