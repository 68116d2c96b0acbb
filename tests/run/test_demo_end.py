"""What the demo says at its end: both scores, before and after."""

import pytest
import torchvision

import train
from pixpro import config
from pixpro.checkpoints.checkpoint import LAST, load
from pixpro.data.held_out import open_pairs
from pixpro.images import open_images
from pixpro.monitor.matching import encoder_matching
from pixpro.monitor.semantics import encoder_semantics, open_masks
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
    command = ["--demo", "--loss", loss, *small, "--output_dir", str(tmp_path / "out")]
    assert train.main(command) == 0
    told = capsys.readouterr().out
    assert told.startswith("recipe small: ")

    settings = config.settle(config.parse_args(command))
    model, expected = train.build_model(settings), []
    for state in (model.state_dict(), load(tmp_path / "out" / LAST)["model"]):
        model.load_state_dict(state)
        matching = encoder_matching(
            model.encoder, open_pairs(open_images(settings.data), settings.val_data, 64, "image")
        )
        expected.append((matching["trunk"], encoder_semantics(model.encoder, *open_masks(scenes, 64))))
    lines = ("dense matching accuracy on", "cells named by a linear classifier on")
    for line, before, after in zip(lines, *expected, strict=True):
        score = f"{before.accuracy:.3f} before training, {after.accuracy:.3f} now, {after.chance:.3f} by chance"
        assert f"{line} {after.images} held-out images: {score}\n" in told
    assert expected[0] != expected[1]
