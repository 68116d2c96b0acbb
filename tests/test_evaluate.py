"""Scores of frozen backbones: each equal to its definition, read from the usual layouts, reported with its spread."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.optimize import minimize

from downstream import evaluate
from downstream.probes.classifiers import LinearProbe, confusion, fit_linear, knn_scores, mean_iou
from downstream.probes.frozen_trunk import calibrate, central_view, untrained_trunk
from downstream.probes.image_scores import ImageFeatureSet, image_scores, split
from downstream.probes.labelled import CITYSCAPES_IDS, VOID, class_folders, mask_folder, read_mask
from downstream.probes.mask_scores import DenseFeatureSet, cell_labels, count_classes, dense_scores, segmentation_score
from downstream.probes.official_linear import train_classifier
from downstream.probes.score_table import as_json, as_table
from pixpro import PixPro
from pixpro.errors import UserError
from pixpro.scenes import write_scenes

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes") / "voc", 8, seed=1, held_out=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "last.pth.tar"
    torch.save({"model": PixPro("resnet18", hidden_dim=8, dim=4).state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def colour_classes(tmp_path_factory):
    """Red and blue pictures, so that any features tell them apart."""
    folder = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (folder / name).mkdir()
        for number in range(5):
            pixels = rng.integers(0, 60, (40, 48, 3), np.uint8)
            pixels[..., channel] += 180
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


class ColourTrunk(torch.nn.Module):
    """A stand-in for a trunk whose features are the mean colours of the cells."""

    def forward(self, images):
        return F.avg_pool2d(images, 32)


def test_knn_equals_loops_from_the_definition():
    torch.manual_seed(0)
    bank, queries = torch.randn(30, 6).double(), torch.randn(7, 6).double()
    labels = F.one_hot(torch.randint(0, 4, (30,)), 4).double()
    scores = knn_scores(bank, labels, queries, neighbours=5, temperature=0.1)
    for q, row in zip(queries.numpy(), scores.numpy(), strict=True):
        cosines = [q @ b / np.sqrt((q @ q) * (b @ b)) for b in bank.numpy()]
        votes = np.zeros(4)
        for index in sorted(range(30), key=lambda i: -cosines[i])[:5]:
            votes += np.exp(cosines[index] / 0.1) * labels[index].numpy()
        np.testing.assert_allclose(row, votes / votes.sum(), rtol=1e-9)
    assert knn_scores(bank[:3], labels[:3], queries, neighbours=5).shape == (7, 4)


def test_the_linear_probe_is_the_minimum_that_another_solver_finds():
    torch.manual_seed(1)
    features, labels = torch.randn(40, 3).double() * 5 + 2, torch.rand(40, 3).double()
    labels = labels / labels.sum(1, keepdim=True)
    probe = LinearProbe(features, labels, penalty=0.05)
    x = (features - features.mean(0)) / features.std(0, correction=0)

    def loss(flat):
        weight, bias = torch.tensor(flat[:9]).view(3, 3), torch.tensor(flat[9:])
        log = (x @ weight.T + bias).log_softmax(1)
        return float(-(labels * log).sum(1).mean() + 0.025 * weight.square().sum())

    best = minimize(loss, np.zeros(12), method="BFGS", options={"gtol": 1e-7})
    found = loss(torch.cat((probe.weight.flatten(), probe.bias)).numpy())
    assert found <= best.fun + 1e-7
    expected = x @ torch.tensor(best.x[:9]).view(3, 3).T + torch.tensor(best.x[9:])
    torch.testing.assert_close(probe(features).softmax(1), expected.softmax(1), atol=1e-4, rtol=0)


def test_the_penalty_is_chosen_by_held_out_features():
    torch.manual_seed(2)
    noise, labels = torch.randn(60, 50), F.one_hot(torch.randint(0, 2, (60,)), 2)
    strong, weak = LinearProbe(noise, labels, 1.0), LinearProbe(noise, labels, 1e-5)
    chosen = fit_linear(noise, labels, seed=0, penalties=(1.0, 1e-5))
    torch.testing.assert_close(chosen.weight, strong.weight, atol=1e-3, rtol=1e-2)
    assert chosen.weight.norm() < 0.5 * weak.weight.norm()
    assert fit_linear(noise[:3], labels[:3], seed=0)(noise).shape == (60, 2)


def test_mean_iou_equals_loops_and_leaves_out_absent_classes():
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 4, (9, 8)), rng.integers(0, 4, (9, 8))
    truth[truth == 2], prediction[prediction == 2] = 1, 3
    truth[0, :4] = 255
    ious = []
    for label in (0, 1, 3):
        known = truth != 255
        both = (truth == label) & (prediction == label) & known
        either = ((truth == label) | (prediction == label)) & known
        ious.append(both.sum() / either.sum())
    counts = confusion(torch.tensor(prediction), torch.tensor(truth), classes=4)
    assert counts.sum() == known.sum()
    assert mean_iou(counts) == pytest.approx(np.mean(ious))


def test_cells_get_the_shares_of_the_classes_that_they_cover():
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 3, (12, 18))
    mask[:4, :6] = 255
    mask[4:8, 6:9] = 255  # half of a cell
    shares, counts = cell_labels(torch.tensor(mask), 3, 3, classes=3)
    for row in range(3):
        for column in range(3):
            part = mask[row * 4 : row * 4 + 4, column * 6 : column * 6 + 6]
            cell = row * 3 + column
            assert counts[cell] == ((part != 255).mean() >= 0.25)
            if counts[cell]:
                known = part[part != 255]
                np.testing.assert_allclose(shares[cell], [(known == k).mean() for k in range(3)], atol=1e-6)
    assert not counts[0] and counts[4]


def test_segmentation_by_perfect_cells_is_perfect(tmp_path):
    mask = np.kron([[0, 1], [2, 255]], np.ones((32, 32))).astype(np.uint8)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "image.png")
    test = DenseFeatureSet(ColourTrunk(), [(tmp_path / "image.png", tmp_path / "mask.png")], 64, CPU)
    answers = F.one_hot(torch.tensor([0, 1, 2, 0]), 3).float()
    # interpolation blurs the borders: three quarters of each cell at least keep their class
    assert segmentation_score(lambda cells: answers, test, 3) > 0.7
    assert segmentation_score(lambda cells: answers.roll(1, 1), test, 3) < 0.2


def test_dense_scores_find_classes_that_colours_tell(tmp_path):
    rng, pairs = np.random.default_rng(1), []
    for number in range(6):
        mask = np.kron(rng.integers(0, 3, (3, 4)), np.ones((32, 32))).astype(np.uint8)
        mask[0, 0] = 2
        Image.fromarray(mask).save(tmp_path / f"{number}.png")
        Image.fromarray(np.eye(3, dtype=np.uint8)[mask] * 200).save(tmp_path / f"{number}.jpg", quality=95)
        pairs.append((tmp_path / f"{number}.jpg", tmp_path / f"{number}.png"))
    train, test = (DenseFeatureSet(ColourTrunk(), part, 96, CPU) for part in (pairs[:4], pairs[4:]))
    scores = dense_scores(train, test, count_classes(pairs), seed=0)
    assert set(scores) == {"dense k-NN", "dense linear"} and min(scores.values()) > 0.7
    assert dense_scores(train, test, 3, seed=0) == scores


def test_image_scores_find_classes_that_colours_tell(colour_classes):
    data = class_folders(colour_classes)
    assert data.names == ["blue", "red"] and len(data.train) == 10 and data.test == []
    features = ImageFeatureSet(ColourTrunk(), data, 64, CPU)
    assert image_scores(features, seed=0) == {"image k-NN": 1.0, "image linear": 1.0}
    train, train_labels, test, test_labels = features.split(0)
    assert len(train) == 8 and sorted(test_labels.tolist()) == [0, 1]
    layer = train_classifier(ColourTrunk(), data.train, 2, size=64, epochs=8, seed=0, device=CPU, batch_size=5, lr=1.0)
    assert (layer(features.train).argmax(1) == features.train_labels).all()


def test_splits_are_disjoint_stratified_and_follow_the_seed():
    labels = torch.tensor([0] * 10 + [1] * 5 + [2])
    kept, held = split(labels, has_tests=False, seed=3)
    assert sorted(torch.cat((kept, held)).tolist()) == list(range(16))
    assert labels[held].bincount().tolist() == [2, 1]
    assert torch.equal(split(labels, False, 3)[1], held) and not torch.equal(split(labels, False, 4)[1], held)
    assert len(split(labels, has_tests=True, seed=0)[0]) == 14
    with pytest.raises(UserError, match="single image"):
        split(torch.tensor([0, 1]), False, 0)


def test_untrained_trunks_follow_the_seed_and_are_calibrated():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    trunk, again, other = untrained_trunk("resnet18", 0), untrained_trunk("resnet18", 0), untrained_trunk("resnet18", 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(trunk.conv1.weight, again.conv1.weight)
    assert not torch.equal(trunk.conv1.weight, other.conv1.weight)
    batch = torch.randn(8, 3, 64, 64) * 3 + 1
    calibrate(trunk, [batch])
    assert not trunk.training
    normalised = trunk.bn1(trunk.conv1(batch))
    torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalised.var((0, 2, 3)), torch.ones(64), atol=1e-2, rtol=0)


def test_a_trunk_is_the_model_without_its_head():
    model = untrained_trunk("resnet18", 0)
    whole = torch.nn.Sequential(*model.children())
    images = torch.randn(2, 3, 64, 96)
    assert torch.equal(model(images), whole(images)) and model(images).shape == (2, 512, 2, 3)
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("shape", [(50, 400), (400, 50), (300, 200), (5, 9)])
def test_central_views_are_central_squares_of_any_image(shape):
    height, width = shape
    x = np.linspace(-1, 1, width)[None, :, None] * np.ones((height, 1, 3))
    pixels = torch.tensor((x * 100 + 128).astype(np.uint8)).permute(2, 0, 1)
    view = central_view(pixels, 64)
    assert view.shape == (3, 64, 64)
    middle = (view.mean(dim=(1, 2)) * torch.tensor([0.229, 0.224, 0.225]) + torch.tensor([0.485, 0.456, 0.406])) * 255
    assert (middle - 127.5).abs().max() < 3


def test_scenes_are_read_as_vocs_layout_and_tested_on_test(scenes):
    masks = mask_folder(scenes)
    assert masks.layout == "voc" and len(masks.train) == 6 and len(masks.test) == 2
    (scenes / "SegmentationClass" / "000008.png").rename(scenes / "kept.png")
    try:
        without = mask_folder(scenes)
        names = (scenes / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
        assert [image.stem for image, _ in without.test] == names and len(without.train) < 6
    finally:
        (scenes / "kept.png").rename(scenes / "SegmentationClass" / "000008.png")
    assert count_classes(masks.train + masks.test) <= 9


@pytest.mark.parametrize("kind", ["TrainIds", "Ids"])
def test_cityscapes_layout_gives_the_classes_of_the_benchmark(tmp_path, kind):
    for split_name in ("train", "val"):
        for part in ("leftImg8bit", "gtFine"):
            (tmp_path / part / split_name / "ulm").mkdir(parents=True)
        Image.new("RGB", (64, 32)).save(tmp_path / "leftImg8bit" / split_name / "ulm" / "ulm_1_leftImg8bit.png")
        values = np.arange(34, dtype=np.uint8)[None].repeat(2, 0)
        if kind == "TrainIds":
            values = np.array([CITYSCAPES_IDS.index(v) if v in CITYSCAPES_IDS else 255 for v in range(34)], np.uint8)[
                None
            ]
        Image.fromarray(values).save(tmp_path / "gtFine" / split_name / "ulm" / f"ulm_1_gtFine_label{kind}.png")
    masks = mask_folder(tmp_path)
    assert masks.layout == "cityscapes" and len(masks.train) == len(masks.test) == 1
    mask = read_mask(masks.test[0][1])[0]
    # road, sidewalk, building, ..., bicycle; everything else is void
    assert mask[7] == 0 and mask[8] == 1 and mask[11] == 2 and mask[33] == 18 and mask[0] == VOID
    assert sorted(set(mask.tolist())) == [*range(19), VOID]


def test_masks_that_are_no_masks_are_named(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "rgb.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "rgb.png").read_bytes()[:40])
    for name in ("rgb.png", "cut.png"):
        with pytest.raises(UserError, match=name):
            read_mask(tmp_path / name)


def test_a_split_file_cannot_lead_out_of_its_folder(tmp_path):
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("../../secret\n")
    with pytest.raises(UserError, match="one image name per line"):
        mask_folder(tmp_path)


def test_tables_show_mean_and_sample_deviation():
    scores = {"dense matching": {"a": [0.5, 0.7], "untrained": [0.25]}}
    assert re.search(r"dense matching +60\.0 ± 14\.1 +25\.0", as_table(scores))
    record = as_json(scores)["dense matching"]
    assert record["a"]["mean"] == pytest.approx(0.6) and record["a"]["std"] == pytest.approx(0.1 * 2**0.5)
    assert record["untrained"] == {"mean": 0.25, "std": None, "values": [0.25]}


def test_everything_is_measured_for_every_network_from_another_folder(scenes, checkpoint, colour_classes, tmp_path):
    """As users run it: from inside downstream/, nothing installed."""
    other = tmp_path / "last.pth.tar"
    other.write_bytes(checkpoint.read_bytes())
    output = tmp_path / "scores.json"
    command = [sys.executable, "-W", "ignore", "evaluate.py", checkpoint, "--compare", other, "--seeds", "2"]
    command += ["--images", scenes / "held_out", "--classes", colour_classes, "--masks", scenes]
    command += ["--image-size", "64", "--dense-size", "64", "--official-linear", "1", "--output", output]
    env = os.environ | {"OMP_NUM_THREADS": "1"}  # two threads on a busy machine wait for each other
    done = subprocess.run(list(map(str, command)), cwd=ROOT / "downstream", env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads(output.read_text())
    tasks = {"dense matching", "image k-NN", "image linear", "image linear, official", "dense k-NN", "dense linear"}
    assert set(record["scores"]) == tasks
    for networks in record["scores"].values():
        assert set(networks) == {str(checkpoint), str(other), "untrained"}
        assert networks[str(checkpoint)] == networks[str(other)]
        assert all(0 <= value <= 1 for network in networks.values() for value in network["values"])
        assert len(networks["untrained"]["values"]) == 2
    assert record["arch"] == "resnet18" and 0 < record["matching_chance"] < 1
    assert all(task in done.stdout for task in tasks)


def test_without_data_the_sample_scenes_are_used(checkpoint, scenes, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "sample_scenes", lambda: scenes)
    arguments = [str(checkpoint), "--seeds", "1", "--image-size", "64", "--dense-size", "64"]
    assert evaluate.main(arguments) == 0
    first = capsys.readouterr().out
    assert "dense matching" in first and "dense k-NN" in first and "image" not in first
    assert evaluate.main(arguments) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds 0"),
        (["--images", "none"], "not a folder"),
        (["--classes", "none"], "not a folder"),
        (["--masks", "none"], "ImageSets"),
        (["--official-linear", "5"], "--classes"),
        (["--output", "none/scores.json"], "no folder none"),
        (["--device", "cuda:99"], "CUDA"),
        (["--arch", "resnet50"], "resnet18"),
    ],
)
def test_wrong_input_is_one_line_with_code_2(checkpoint, arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert evaluate.main([str(checkpoint), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and message in captured.err
    assert not list(tmp_path.iterdir())


def test_a_missing_checkpoint_is_one_line_with_code_2(tmp_path, capsys):
    assert evaluate.main([str(tmp_path / "none.pth")]) == 2
    assert "none.pth" in capsys.readouterr().err
