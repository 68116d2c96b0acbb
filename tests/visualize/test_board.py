"""Pictures of pairs on TensorBoard: they show what the network makes of matched cells, and disturb nothing."""

import io
import random
import tarfile

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import train
from pixpro import PixPro
from pixpro.data.held_out import SHOWN, held_out_pairs, open_pairs
from pixpro.data.views import View
from pixpro.errors import UserError
from pixpro.images import open_images
from pixpro.visualize.board import pairs_image, pairs_picture
from pixpro.visualize.feature_panels import CYAN
from pixpro.visualize.pair import busiest_cell
from pixpro.visualize.sheet import VIEW_COLOURS
from tests.helpers.pictures import folder
from tests.helpers.runs import STEPS, TinyTrunk, arguments, rows, weights


def views(*boxes: tuple[float, float, float, float]) -> View:
    """Views at some places of an image, whose pixels are noise."""
    return View(torch.randn(len(boxes), 3, 64, 64), torch.tensor(boxes))


def frames(picture: torch.Tensor, colour: str) -> np.ndarray:
    """Where a picture has exactly this colour: (H, W) bool."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (picture.permute(1, 2, 0).numpy() == rgb).all(2)


def strokes(mask: np.ndarray, axis: int) -> list[float]:
    """Middles of the straight lines of more than 100 pixels in a mask, those across `axis`."""
    there = np.flatnonzero(mask.sum(axis) > 100)
    return [group.mean() for group in np.split(there, np.flatnonzero(np.diff(there) > 5) + 1)]


def test_the_nearest_cell_is_framed_where_it_is():
    """Cell i of view 1 has the features of cell 3 of view 2, whatever the boxes say."""
    torch.manual_seed(0)
    view1, view2 = views((0, 0, 1, 1)), views((0, 0, 1, 1))
    maps2 = torch.eye(4)[None].reshape(1, 4, 2, 2)
    maps1 = torch.zeros(1, 4, 2, 2)
    maps1[:, 3] = 1
    picture = pairs_image(view1, view2, maps1, maps2)
    cyan, blue = frames(picture, CYAN), frames(picture, VIEW_COLOURS[1])
    (*_, left, right), (top, bottom) = strokes(blue, 0), strokes(blue, 1)  # of the last panel
    assert len(strokes(blue, 0)) == 4 and right - left == pytest.approx(bottom - top, abs=2)
    rows, columns = (np.flatnonzero(cyan.any(axis)) for axis in (1, 0))
    cell = (right - left) / 2
    assert (columns[0] - left, rows[0] - top) == pytest.approx((cell, cell), abs=0.1 * cell)
    assert (right - columns[-1], bottom - rows[-1]) == pytest.approx((0, 0), abs=0.1 * cell)


def test_pairs_that_overlap_come_first():
    torch.manual_seed(0)
    apart, same = (0.0, 0.0, 0.2, 0.2), (0.5, 0.5, 1.0, 1.0)
    view1, view2 = views(apart, same, apart), views(same, same, same)
    maps1, maps2 = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    alone = pairs_image(*(View(v.pixels[1:2], v.box[1:2]) for v in (view1, view2)), maps1[1:2], maps2[1:2])
    among = pairs_image(view1, view2, maps1, maps2, limit=1)
    assert torch.equal(alone, among)
    assert pairs_image(view1, view2, maps1, maps2, limit=3).shape[1] > 2.5 * among.shape[1]


def test_the_cell_to_explain_has_most_matches_and_lies_near_the_middle():
    counts = np.zeros((9, 9), bool)
    counts[0, :3] = counts[4, :2] = counts[5, :3] = True
    assert busiest_cell(counts) == 5
    assert busiest_cell(np.zeros((9, 9), bool)) == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_features_without_meaning_are_drawn(value):
    view = views((0, 0, 1, 1))
    maps = torch.full((1, 4, 2, 2), value)
    assert pairs_image(view, view, maps, maps).dtype == torch.uint8


def test_drawing_leaves_the_network_and_all_generators_as_they_were(tmp_path):
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    encoder = PixPro("resnet18", hidden_dim=8, dim=8).encoder.train()
    source = open_images([folder(tmp_path / "data", 6)])
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    state = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].copy()
    picture = pairs_picture(encoder, open_pairs(source, [], 64, "image"), 0.7)
    assert picture.shape[0] == 3 and picture.dtype == torch.uint8
    assert random.getstate() == state[0] and torch.equal(torch.get_rng_state(), state[1])
    assert (np.random.get_state()[1] == state[2]).all()
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(part.training for part in encoder.modules()) and all(p.grad is None for p in encoder.parameters())
    assert all(norm.running_mean is not None for norm in encoder.modules() if isinstance(norm, nn.BatchNorm2d))


def test_training_images_stand_in_where_no_held_out_ones_are_given_and_bad_ones_are_left_out(tmp_path):
    data = folder(tmp_path / "data", SHOWN + 4)
    assert len(open_pairs(open_images([data]), [], 32, "image")[0].box) == SHOWN
    for path in sorted(data.iterdir())[:-3]:
        path.write_bytes(b"no picture")
    first, second = open_pairs(open_images([data]), [], 32, "image")
    assert 0 < len(first.box) <= 3 and len(second.box) == len(first.box)
    for path in data.iterdir():
        path.write_bytes(b"no picture")
    assert open_pairs(open_images([data]), [], 32, "image") is None


def test_held_out_images_in_an_archive_are_those_of_the_folder(tmp_path):
    data = folder(tmp_path / "data", 5)
    with tarfile.open(tmp_path / "held_out.tar", "w") as archive:
        archive.add(data, "held_out")
        damaged = tarfile.TarInfo("held_out/zzz.jpg")
        damaged.size = 4
    source = open_images([data])
    from_folder = held_out_pairs(sorted(data.iterdir()), 32)
    from_archive = open_pairs(source, [str(tmp_path / "held_out.tar")], 32, "image")
    for mine, theirs in zip(from_archive, from_folder, strict=True):
        assert torch.equal(mine.pixels, theirs.pixels) and torch.equal(mine.box, theirs.box)
    with tarfile.open(tmp_path / "held_out.tar", "a") as archive:
        archive.addfile(damaged, io.BytesIO(b"none"))
    with pytest.raises(UserError, match="zzz.jpg: cannot be used as a held-out image"):
        open_pairs(source, [str(tmp_path / "held_out.tar")], 32, "image")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.models, "get_model", lambda *args, **options: TinyTrunk())
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))
    return folder(tmp_path / "data", 16)


def test_a_run_draws_at_its_beginning_at_each_evaluation_and_at_its_end(tiny, tmp_path):
    held_out = str(folder(tmp_path / "held_out", 4))
    epoch = STEPS // 3
    for number, more in enumerate(([], ["--val_data", held_out])):
        output = tmp_path / f"out{number}"
        assert train.main(arguments(tiny, output, "--eval_every", "1", *more)) == 0
        events = EventAccumulator(str(output)).Reload()
        assert [image.step for image in events.Images("pairs")] == [0, epoch, 2 * epoch, STEPS]
        first, last = (
            Image.open(io.BytesIO(events.Images("pairs")[i].encoded_image_string)).convert("RGB") for i in (0, -1)
        )
        assert first.size[0] == 800 and first.tobytes() != last.tobytes()  # the weights have moved


def test_pictures_change_nothing_in_the_training(tiny, tmp_path, monkeypatch):
    assert train.main(arguments(tiny, tmp_path / "with", "--eval_every", "1")) == 0
    monkeypatch.setattr(train, "open_pairs", lambda *arguments: None)
    assert train.main(arguments(tiny, tmp_path / "without", "--eval_every", "1")) == 0
    assert weights(tmp_path / "with") == weights(tmp_path / "without")
    assert rows(tmp_path / "with") == rows(tmp_path / "without")
    assert not EventAccumulator(str(tmp_path / "without")).Reload().Tags()["images"]


def test_a_run_that_was_finished_draws_nothing_again(tiny, tmp_path):
    assert train.main(arguments(tiny, tmp_path / "out")) == 0
    before = {path for path in (tmp_path / "out").glob("events*")}
    assert train.main(arguments(tiny, tmp_path / "out", "--resume", "auto")) == 0
    (again,) = set((tmp_path / "out").glob("events*")) - before
    assert not EventAccumulator(str(again)).Reload().Tags()["images"]
