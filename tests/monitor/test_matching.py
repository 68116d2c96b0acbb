"""Dense matching: equal to loops from the definition, fair to untrained networks, and no trace of it in training."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pixpro.data import held_out, samples
from pixpro.data.held_out import held_out_pairs, open_pairs
from pixpro.data.views import View
from pixpro.errors import UserError
from pixpro.images import open_images
from pixpro.method.encoder import Encoder
from pixpro.method.numerics import batch_statistics
from pixpro.monitor.matching import encoder_matching, matched_cells, matching_scores
from pixpro.scenes import write_scenes
from pixpro.training.sync_batchnorm import BatchNorm
from tests.helpers.pictures import colour_classes


def random_pairs(count=4, size=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    views = []
    for _ in range(2):
        corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values
        box = torch.cat((corners[:, 0] * 0.5, 0.5 + corners[:, 1] * 0.5), dim=1)
        views.append(View(torch.randn(count, 3, size, size, generator=generator), box))
    return views[0], views[1]


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder("resnet18", hidden_dim=16, dim=8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = write_scenes(tmp_path_factory.mktemp("scenes") / "voc", 10, held_out=2)
    return sorted((folder / "JPEGImages").iterdir())


def slow_matching(features1, features2, box1, box2, threshold):
    """Accuracy and chance of one image by loops over cells, from the definition; None without judged cells."""
    channels, height, width = features1.shape
    bin1 = ((box1[2] - box1[0]) / width, (box1[3] - box1[1]) / height)
    bin2 = ((box2[2] - box2[0]) / width, (box2[3] - box2[1]) / height)
    diagonal = max(np.hypot(*bin1), np.hypot(*bin2))
    right, chance = [], []
    for i in range(height):
        for j in range(width):
            x, y = box1[0] + (j + 0.5) * bin1[0], box1[1] + (i + 0.5) * bin1[1]
            if not (min(box2[0], box2[2]) <= x <= max(box2[0], box2[2]) and box2[1] <= y <= box2[3]):
                continue
            near, cosines = [], []
            for k in range(height):
                for m in range(width):
                    x2, y2 = box2[0] + (m + 0.5) * bin2[0], box2[1] + (k + 0.5) * bin2[1]
                    near.append(np.hypot(x - x2, y - y2) / diagonal < threshold)
                    a, b = features1[:, i, j], features2[:, k, m]
                    cosines.append(a @ b / np.sqrt((a @ a) * (b @ b)))
            right.append(near[int(np.argmax(cosines))])
            chance.append(np.mean(near))
    return (np.mean(right), np.mean(chance), len(right)) if right else None


def test_scores_equal_loops_from_the_definition():
    view1, view2 = random_pairs(6)
    view1.box[0] = torch.tensor([0.8, 0.1, 0.2, 0.9])  # flipped
    view2.box[1] = torch.tensor([0.95, 0.3, 0.4, 0.5])
    view1.box[2], view2.box[2] = torch.tensor([0.0, 0.0, 0.3, 0.3]), torch.tensor([0.5, 0.5, 1.0, 1.0])
    shared = torch.randn(6, 5, 4, 4)
    maps = {id(view1.pixels): shared, id(view2.pixels): shared + 0.5 * torch.randn(6, 5, 4, 4)}
    judged = [
        slow_matching(*(v.double().numpy() for v in values), 0.7)
        for values in zip(maps[id(view1.pixels)], maps[id(view2.pixels)], view1.box, view2.box, strict=True)
    ]
    assert judged[2] is None
    expected = np.array([result for result in judged if result is not None])
    answers = iter((shared, maps[id(view2.pixels)]))
    score = matching_scores(lambda pixels: {"cells": next(answers)}, (view1, view2), batch_size=6)["cells"]
    assert score.images == 5 and score.cells == expected[:, 2].sum()
    np.testing.assert_allclose((score.accuracy, score.chance), expected[:, :2].mean(0), atol=1e-6)


def test_features_that_know_their_place_are_always_right_and_constant_ones_score_chance():
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(3, 1)
    codes = torch.eye(16).view(1, 16, 4, 4).repeat(3, 1, 1, 1)
    right, chance, counts = matched_cells(codes, codes, boxes, boxes)
    assert counts.all() and (right == 1).all()
    # only the cell itself is nearer than 0.7 of a diagonal where the neighbour is 0.707 of it away
    torch.testing.assert_close(chance, torch.full((3, 16), 1 / 16))
    constant = torch.full((3, 7, 4, 4), 0.3)
    right, chance, _ = matched_cells(constant, constant, boxes, boxes)
    torch.testing.assert_close(right, chance)
    flipped = boxes[:, [2, 1, 0, 3]]
    assert (matched_cells(codes, codes.flip(3), boxes, flipped)[0] == 1).all()
    assert (matched_cells(codes, codes, boxes, flipped)[0] == 0).all()


def test_batches_of_any_size_give_the_same_score_when_images_do_not_mix():
    pairs = random_pairs(7)
    pool = nn.AvgPool2d(16)
    scores = [matching_scores(lambda x: {"mean": pool(x)}, pairs, batch_size=b)["mean"] for b in (1, 3, 7)]
    assert scores[0].images == 7 and scores[0].cells == scores[1].cells
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-6)
    np.testing.assert_allclose(scores[0], scores[2], rtol=1e-6)


def test_no_overlap_at_all_gives_zero_images_instead_of_nan():
    view1, view2 = random_pairs(2)
    view1.box[:], view2.box[:] = torch.tensor([0, 0, 0.2, 0.2]), torch.tensor([0.5, 0.5, 1, 1])
    score = matching_scores(lambda x: {"pixels": x[..., ::16, ::16]}, (view1, view2))["pixels"]
    assert score == (0.0, 0.0, 0, 0)


@pytest.mark.parametrize("training", [True, False])
def test_training_goes_on_as_if_nothing_had_been_measured(encoder, training):
    encoder.train(training)
    encoder.layer1.eval()  # a frozen part stays frozen
    encoder.conv1.weight.grad = torch.ones_like(encoder.conv1.weight)
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    buffers = {name: id(value) for name, value in encoder.named_buffers()}
    modes = {name: part.training for name, part in encoder.named_modules()}
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    generators = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    scores = encoder_matching(encoder, random_pairs())
    assert set(scores) == {"trunk", "projector"}
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())
    assert len(state) == len(encoder.state_dict())
    assert {name: id(value) for name, value in encoder.named_buffers()} == buffers
    assert {name: part.training for name, part in encoder.named_modules()} == modes
    assert random.getstate() == generators[0] and (np.random.get_state()[1] == generators[1]).all()
    assert torch.equal(torch.get_rng_state(), generators[2])
    assert torch.equal(encoder.conv1.weight.grad, torch.ones_like(encoder.conv1.weight))
    assert all(value.grad is None for name, value in encoder.named_parameters() if name != "conv1.weight")


def test_everything_is_restored_when_the_measurement_fails(encoder):
    with pytest.raises(RuntimeError, match="stop"), batch_statistics(encoder):
        raise RuntimeError("stop")
    assert encoder.training and encoder.bn1.running_mean is not None
    assert "bn1.running_var" in encoder.state_dict()


def test_batch_statistics_do_not_depend_on_the_running_ones(encoder):
    pairs = random_pairs()
    before = encoder_matching(encoder, pairs)
    encoder.bn1.running_mean += 100
    encoder.layer4[1].bn2.running_var *= 1000
    assert encoder_matching(encoder.eval(), pairs) == before


def test_batch_statistics_are_those_of_training(encoder):
    images = torch.randn(4, 3, 64, 64)
    with batch_statistics(encoder), torch.no_grad():
        measured = encoder.features(images)["c5"]
    torch.testing.assert_close(measured, encoder.features(images)["c5"].detach())


def test_scores_ignore_mixed_precision_around_them(encoder):
    pairs = random_pairs()
    plain = encoder_matching(encoder, pairs)
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder_matching(encoder, pairs) == plain


def test_held_out_views_follow_from_the_seed_alone(pictures):
    first = held_out_pairs(pictures, 32, seed=5)
    random.seed(9), torch.manual_seed(9)
    again = held_out_pairs(pictures, 32, seed=5)
    other = held_out_pairs(pictures, 32, seed=6)
    for view, same, different in zip(first, again, other, strict=True):
        assert torch.equal(view.pixels, same.pixels) and torch.equal(view.box, same.box)
        assert not torch.equal(view.box, different.box)
    assert first[0].pixels.shape == (10, 3, 32, 32) and first[1].box.shape == (10, 4)
    assert not torch.equal(first[0].box, first[1].box)
    fewer = held_out_pairs(pictures[:3], 32, seed=5)
    assert torch.equal(fewer[0].pixels, first[0].pixels[:3])


def test_both_views_show_the_place_that_their_boxes_say(tmp_path, monkeypatch):
    """Where colours tell the place, matching by colour finds the right cells."""
    plain = (-1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0)  # no jitter, no grey, no blur, no solarize
    monkeypatch.setattr(samples, "draw_colour", lambda rng, role: plain)
    y, x = np.mgrid[:200, :300]
    picture = np.stack([x / 300 * 255, y / 200 * 255, np.full(x.shape, 255)], axis=2).astype(np.uint8)
    for number in range(12):
        Image.fromarray(picture).save(tmp_path / f"{number:02d}.jpg", quality=98)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def colours(pixels):
        colour = nn.functional.avg_pool2d(pixels, 16) * std.view(3, 1, 1) + mean.view(3, 1, 1)
        return {"mean": colour - torch.tensor([0.5, 0.5, 0.0]).view(3, 1, 1)}

    for distance in ("image", "pixel"):
        score = matching_scores(colours, held_out_pairs(sorted(tmp_path.iterdir()), 64, distance=distance))
        assert score["mean"].images >= 10 and score["mean"].chance < 0.4
        assert score["mean"].accuracy > 0.95


def test_a_damaged_held_out_image_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="broken.jpg"):
        held_out_pairs([tmp_path / "broken.jpg"], 32)


def test_held_out_images_are_a_sample_of_all_classes_always_the_same(tmp_path, monkeypatch):
    source = open_images([colour_classes(tmp_path)])  # blue ones come first
    monkeypatch.setattr(held_out, "HELD_OUT", 4)
    monkeypatch.setattr(samples, "draw_colour", lambda rng, role: (-1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0))
    first, again = (open_pairs(source, [str(tmp_path)], 32, "image")[0] for _ in range(2))
    assert torch.equal(first.pixels, again.pixels) and len(first.pixels) == 4
    red, _, blue = first.pixels.mean(dim=(2, 3)).unbind(1)
    assert 0 < (red > blue).sum() < 4


def test_synchronised_batchnorm_is_measured_on_one_rank_alone(encoder):
    pairs = random_pairs()
    expected = encoder_matching(encoder, pairs)
    assert encoder_matching(BatchNorm.convert(encoder), pairs) == expected
    assert encoder_matching(nn.SyncBatchNorm.convert_sync_batchnorm(encoder), pairs) == expected
