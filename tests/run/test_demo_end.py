"""What the demo says at its end: both scores, before and after, and a next step that works on what it trained."""

import re

import pytest
import torchvision

import train
from pixpro import config
from pixpro.scenes import write_scenes
from tests.helpers.runs import TinyTrunk


@pytest.mark.parametrize("loss", ["pixpro", "pixcontrast"])
def test_the_demo_tells_both_scores_before_and_after(loss, tmp_path, monkeypatch, capsys):
    scenes = write_scenes(tmp_path / "scenes", 20, held_out=4)
    monkeypatch.setattr(config, "sample_scenes", lambda: scenes)
    monkeypatch.setattr(train, "sample_scenes", lambda: scenes)
    monkeypatch.setattr(torchvision.models, "get_model", lambda *args, **options: TinyTrunk())
    small = [
        "--neck",
        "none",
        "--epochs",
        "1",
        "--batch_size",
        "4",
        "--hidden_dim",
        "8",
        "--dim",
        "8",
        "--lr_base",
        "64",
    ]
    assert train.main(["--demo", "--loss", loss, *small, "--output_dir", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert told.startswith("recipe small: ")
    number = r"(\d\.\d{3})"
    for title, images in (("dense matching accuracy", r"[1-4]"), ("cells named by a linear classifier", "4")):
        line = rf"{title} on {images} held-out images: {number} before training, {number} now, {number} by chance"
        before, after, chance = map(float, re.search(line, told).groups())
        assert 0 < chance < 1 and before != after
