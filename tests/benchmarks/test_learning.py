"""The benchmark of what is learned: its commands, its data, its ceiling and its table."""

import json
import tarfile
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks import learning
from benchmarks.evidence import supervised
from benchmarks.evidence.data import open_photographs
from benchmarks.evidence.pretrain import METHODS, SCALES, arguments, epochs_of
from benchmarks.evidence.rows import table
from benchmarks.evidence.scoring import scores_of
from benchmarks.evidence.trunk import SMALL, maps_until, small_trunk, trunk_model
from downstream.common.pictures import read_picture
from pixpro.checkpoints.checkpoint import save
from pixpro.config import parse_args, settle
from pixpro.errors import UserError
from pixpro.method.encoder import Encoder
from pixpro.scenes import write_scenes


def packed(folder, tmp_path):
    with tarfile.open(tmp_path / f"{folder.name}.tar", "w") as tar:
        tar.add(folder, folder.name)
    return tmp_path / f"{folder.name}.tar"


def classes_of(folder, train=3, test=1):
    for split, count in (("train", train), ("test", test)):
        for number, name in enumerate(("cat", "dog")):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (40, 36), (80 * number, 9 * index, 0)).save(folder / split / name / f"{index}.png")
    return folder


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("method", [name for name, flags in METHODS.items() if flags])
def test_every_run_is_a_command_line_of_train_py(scale, method, tmp_path):
    command = arguments(SCALES[scale], method, tmp_path, 6535, 2, tmp_path / "out")
    config = settle(parse_args(command))
    assert (config.seed, config.resume, config.data) == (2, "auto", [str(tmp_path)])
    assert config.loss == ("pixcontrast" if method == "PixContrast" else "pixpro")
    assert (config.instance_weight > 0) == ("instance" in method)
    steps = 6535 // config.batch_size * config.epochs
    assert steps * config.batch_size == pytest.approx(SCALES[scale].images, rel=0.25)


def test_fewer_images_than_a_batch_are_refused():
    with pytest.raises(UserError, match="31 training images"):
        epochs_of(SCALES["cpu"], 31)


def test_a_tar_of_class_folders_is_unpacked_once_and_trained_on_without_its_tests(tmp_path):
    tar = packed(classes_of(tmp_path / "animals"), tmp_path)
    data = open_photographs(tar, tmp_path / "place")
    assert (data.name, data.count, len(data.classes.test)) == ("animals", 6, 2)
    stamp = (data.root / "train").stat().st_mtime_ns
    assert (open_photographs(tar, tmp_path / "place").root / "train").stat().st_mtime_ns == stamp


def test_in_voc_s_layout_the_training_images_are_those_of_trainval_made_up_where_it_is_missing(tmp_path):
    scenes = write_scenes(tmp_path / "scenes", 8, held_out=2)
    (scenes / "ImageSets" / "Segmentation" / "trainval.txt").unlink()
    data = open_photographs(packed(scenes, tmp_path), tmp_path / "place")
    names = (scenes / "ImageSets" / "Main" / "trainval.txt").read_text().split()
    assert {path.stem for path in data.images.iterdir()} == set(names)
    assert (len(data.masks.train), len(data.masks.test)) == (6, 2)


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such tar"):
        open_photographs(tmp_path / "none.tar", tmp_path)
    (tmp_path / "bad.tar").write_bytes(b"x" * 600)
    with pytest.raises(UserError, match="cannot be read as a tar"):
        open_photographs(tmp_path / "bad.tar", tmp_path)


def test_the_small_trunk_is_an_encoder_s_and_is_read_back_from_its_checkpoint(tmp_path):
    torch.manual_seed(0)
    with small_trunk():
        encoder = Encoder("resnet18", hidden_dim=8, dim=8)
    assert Encoder("resnet18", hidden_dim=8, dim=8).conv1.kernel_size == (7, 7)  # outside all is as before
    images = torch.randn(2, 3, 64, 64)
    expected = encoder.eval().features(images)["c5"]
    assert expected.shape == (2, 256, 8, 8)
    state = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    save(tmp_path / "last.pth.tar", {"model": state, "optimizer": {}, "step": 1, "config": {}})
    found = maps_until(trunk_model(SMALL, tmp_path / "last.pth.tar"))
    torch.testing.assert_close(found(images), expected)


def test_an_epoch_of_the_ceiling_sees_each_image_once():
    seen = [index for step in range(4, 8) for index in supervised.picked(17, 4, step, seed=3)]
    assert len(seen) == len(set(seen)) == 16
    assert seen != [index for step in range(4) for index in supervised.picked(17, 4, step, seed=3)]


def test_the_ceiling_s_loss_is_the_cross_entropy_of_images_or_of_known_cells():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 2, 2)
    pooled = torch.stack([logits[i].flatten(1).mean(1) for i in range(2)])
    torch.testing.assert_close(supervised.loss_of(logits, [2, 0]), F.cross_entropy(pooled, torch.tensor([2, 0])))
    shares = torch.zeros(2, 4, 3)
    shares[0, 1, 2] = 1.0
    shares[1, 3] = torch.tensor([0.5, 0.5, 0.0])
    cell = -logits[0, :, 0, 1].log_softmax(0)[2]
    mixed = -(logits[1, :, 1, 1].log_softmax(0)[:2]).mean()
    torch.testing.assert_close(supervised.loss_of(logits, list(shares)), (cell + mixed) / 2)


def test_a_crop_of_the_ceiling_keeps_its_mask(tmp_path):
    """Red where the class is 1: after any crop and flip, red cells are of class 1."""
    mask = Image.new("L", (64, 64), 0)
    image = Image.new("RGB", (64, 64), (0, 0, 0))
    image.paste((255, 0, 0), (0, 0, 30, 64)), mask.paste(1, (0, 0, 30, 64))
    image.save(tmp_path / "image.png"), mask.save(tmp_path / "mask.png")
    assert read_picture(tmp_path / "image.png").shape == (3, 64, 64)
    for number in range(12):
        pixels, shares = supervised.example((tmp_path / "image.png", tmp_path / "mask.png"), f"k{number}", 32, 2)
        red = F.adaptive_avg_pool2d(pixels[0].float()[None] / 255, 4).flatten()
        assert (red - shares[:, 1]).abs().max() < 0.2


def test_masks_give_frozen_and_fine_tuned_scores_that_follow_the_seed(tmp_path):
    data = open_photographs(write_scenes(tmp_path / "scenes", 8, held_out=2), tmp_path / "place")
    scale = replace(SCALES["cpu"], image_size=64, segmentation=(2, 2, 64, 1))
    once, again, other = (scores_of(scale, None, data, seed=seed, folder=tmp_path) for seed in (0, 0, 1))
    assert once == again != other
    names = {"dense matching", "dense matching by chance", "dense k-NN", "dense linear"}
    assert set(once) == names | {"fine-tuned FCN", "fine-tuned FCN, pixels"}
    assert all(0 <= score <= 1 for score in once.values())
    frozen = scores_of(scale, None, data, seed=0, folder=tmp_path, fine_tune=False)
    assert frozen == {name: once[name] for name in names}


def test_runs_that_have_a_row_are_not_repeated_and_the_table_tells_their_spread(tmp_path, monkeypatch, capsys):
    data = classes_of(tmp_path / "animals", train=16)
    calls = []

    def pretrain(scale, method, data, seed, folder):
        calls.append((method, seed))
        return None, {"images_seen": 0 if method == "untrained" else 100}

    monkeypatch.setattr(learning, "pretrain", pretrain)
    monkeypatch.setattr(learning, "scores_of", lambda *args, seed, **rest: {"image k-NN": 0.5 + seed / 10})
    command = ["--data", str(data), "--output-dir", str(tmp_path / "out"), "--rows", str(tmp_path / "rows.jsonl")]
    assert learning.main([*command, "--methods", "untrained", "--seeds", "2"]) == 0
    assert learning.main([*command, "--methods", "untrained", "PixPro", "--seeds", "2"]) == 0
    assert calls == [("untrained", 0), ("untrained", 1), ("PixPro", 0), ("PixPro", 1)]
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["method"], row["seed"]) for row in rows] == sorted(
        (m, s) for m in ("PixPro", "untrained") for s in (0, 1)
    )
    capsys.readouterr()
    assert learning.main(["--table", "--rows", str(tmp_path / "rows.jsonl")]) == 0
    told = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in told.splitlines()]
    assert ["PixPro (2)", "100", "55.0 ± 7.1"] in cells and ["untrained (2)", "", "55.0 ± 7.1"] in cells
    assert told.strip() == table(rows)


def test_a_command_line_that_makes_no_sense_is_told_in_a_line(tmp_path, capsys):
    for given in ([], ["--arch", "resnet50"], ["--seeds", "0"], ["--table", "--rows", str(tmp_path / "none")]):
        assert learning.main(given) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
