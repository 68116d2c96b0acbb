"""segment.py: the network has stride 16, masks follow their pixels, mIoU is by the definition, the program is sound."""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18, resnet50

from downstream import segment
from downstream.detection.data import grouped_batches
from downstream.segmentation.data import TrainCrops
from downstream.segmentation.labels import SegmentationSet
from downstream.segmentation.masks import MaskedImage
from downstream.segmentation.net import FCN, pixel_loss
from downstream.segmentation.scores import confusion, mean_iou, scores
from pixpro.method.trunks import new_backbone
from tests.helpers.downstream_programs import call, interrupted_in_step, refusal, results, state

SMALL = "--arch resnet18 --batch-size 2 --scale 0.000016 --crop 48 --num-classes 9 --workers 0 --log-every 1"
SMALL += " --pictures 1 --train-split trainval --test-split test --weights none"  # 4 iterations


@pytest.fixture
def program(scenes: Path) -> Callable[..., int]:
    """Runs segment.py in this process with small settings on the sample scenes, plus the given options."""
    return partial(call, segment, "--data", scenes, *SMALL.split())


@pytest.mark.parametrize("make", [resnet18, resnet50])
def test_the_trunk_has_stride_16_with_dilated_last_stage(make: Callable[[], nn.Module]):
    model = FCN(make(), 5).eval()
    assert model.backbone(torch.zeros(1, 3, 64, 96)).shape[2:] == (4, 6)
    layer4 = [m for m in model.backbone[7].modules() if isinstance(m, nn.Conv2d)]
    assert {m.stride for m in layer4} == {(1, 1)}
    assert {m.dilation for m in layer4 if m.kernel_size == (3, 3)} == {(2, 2)}
    assert [m.dilation for m in model.head if isinstance(m, nn.Conv2d)] == [(6, 6), (6, 6), (1, 1)]
    with torch.no_grad():
        assert model([torch.zeros(3, 50, 70)]).shape == (1, 5, 50, 70)


def test_images_of_any_size_are_scored_cell_by_cell_where_they_are():
    pytest.importorskip("timm")
    torch.manual_seed(0)
    model = FCN(new_backbone("timm/regnetx_002"), 5).eval()
    image = torch.rand(3, 50, 70) * 255
    mean = torch.tensor([123.675, 116.280, 103.530]).view(3, 1, 1)  # of ImageNet, in 0..255
    padded = mean.expand(3, 64, 96).clone()
    padded[:, :50, :70] = image
    with torch.no_grad():
        scores, whole = model([image]), model([padded])
    assert scores.shape == (1, 5, 50, 70)
    torch.testing.assert_close(scores, whole[..., :50, :70], rtol=1e-4, atol=1e-6)


def test_the_loss_leaves_void_pixels_out():
    torch.manual_seed(0)
    scores, masks = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    masks[0, 1:] = 255
    kept = [(i, y, x) for i in range(2) for y in range(4) for x in range(4) if masks[i, y, x] != 255]
    slow = [-F.log_softmax(scores[i, :, y, x], 0)[masks[i, y, x]] for i, y, x in kept]
    torch.testing.assert_close(pixel_loss(scores, masks), torch.stack(slow).mean())
    assert pixel_loss(scores, torch.full_like(masks, 255)).item() == 0


def test_mean_iou_follows_its_definition():
    draw = np.random.default_rng(0)
    truth, predicted = draw.integers(0, 4, (30, 20)), draw.integers(0, 4, (30, 20))
    truth[draw.random(truth.shape) < 0.2] = 255
    truth[truth == 3], predicted[predicted == 3] = 2, 0  # class 3 occurs nowhere
    counted = truth != 255
    slow = []
    for label in range(3):
        a, b = (truth == label) & counted, (predicted == label) & counted
        slow.append(100 * (a & b).sum() / (a | b).sum())
    counts = confusion(torch.from_numpy(truth), torch.from_numpy(predicted), 4)
    assert counts.sum() == counted.sum() and mean_iou(counts) == pytest.approx(np.mean(slow) / 100)
    named = scores(counts, ["road", "sky", "tree", "car"])
    assert named["mIoU"] == pytest.approx(np.mean(slow)) and "IoU/car" not in named
    assert [named[f"IoU/{name}"] for name in ("road", "sky", "tree")] == pytest.approx(slow)
    assert named["pixel accuracy"] == pytest.approx(100 * (truth == predicted)[counted].mean())


def test_masks_follow_their_pixels_and_padding_is_void(tmp_path: Path):
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 20:45], labels[10:30, 50:] = 1, 2
    greys = np.array([20, 90, 220], np.uint8)
    Image.fromarray(np.repeat(greys[labels][:, :, None], 3, axis=2)).save(tmp_path / "a.png")
    Image.fromarray(labels).save(tmp_path / "m.png")
    data = SegmentationSet([MaskedImage("a", tmp_path / "a.png", tmp_path / "m.png")], [], [0, 1, 2], ["a", "b", "c"])
    crops = TrainCrops(data, crop=64, seed=0)
    padded = flipped = 0
    for position in range(20):
        pixels, target = crops[position, 0]
        assert pixels.shape == (3, 64, 64) and target["mask"].shape == (64, 64)
        red, mask = pixels[0].numpy().astype(int), target["mask"].numpy()
        flat = np.isin(red, greys) & (pixels[1].numpy() == red)  # neither padding nor between two classes
        assert (greys[mask[flat]] == red[flat]).mean() > 0.99 and flat.sum() > 300
        padding = (pixels[0].numpy() == 124) & (pixels[2].numpy() == 104)
        assert (mask[padding] == 255).all()
        padded += padding.any()
        flipped += not (target["mask"].equal(crops[position + 1000, 0][1]["mask"]))
        assert crops[position, 0][1]["mask"].equal(target["mask"])
    assert padded > 0 and flipped


def test_two_processes_share_one_shuffled_stream():
    streams = [grouped_batches([0] * 5, batch=1, seed=1, rank=rank, world_size=2) for rank in range(2)]
    taken = sorted(item for s in streams for (item,) in itertools.islice(s, 5))
    assert [position for position, _ in taken] == list(range(10))
    assert sorted(index for _, index in taken[:5]) == sorted(index for _, index in taken[5:]) == list(range(5))


def test_an_interrupted_run_resumes_to_the_same_bits_and_scores(program, tmp_path: Path, capsys):
    assert program("--output-dir", tmp_path / "whole") == 0
    assert "mean IoU" in capsys.readouterr().out
    with interrupted_in_step(3):
        program("--output-dir", tmp_path / "parts", "--save-every", 2)
    assert program("--output-dir", tmp_path / "parts", "--resume", "auto") == 0
    whole, parts = (state(tmp_path / run)["model"] for run in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole | parts)
    scored = results(tmp_path / "whole")["scores"]
    assert scored == results(tmp_path / "parts")["scores"] and 0 <= scored["mIoU"] <= 100
    (picture,) = (tmp_path / "whole" / "pictures").iterdir()
    assert Image.open(picture).width % 3 == 0


def write_cityscapes(folder: Path) -> Path:
    """Two images of 64 x 32 per split: road (id 7) left, car (id 26) right, a void stripe."""
    values = np.full((32, 64), 7, np.uint8)
    values[:, 32:], values[:, 30:34] = 26, 3
    for split, number in itertools.product(("train", "val"), range(2)):
        image = folder / "leftImg8bit" / split / "ulm" / f"ulm_{number}_leftImg8bit.png"
        mask = folder / "gtFine" / split / "ulm" / f"ulm_{number}_gtFine_labelIds.png"
        for path in (image, mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.repeat(values[:, :, None] * 9, 3, axis=2)).save(image)
        Image.fromarray(values).save(mask)
    return folder


def test_cityscapes_ids_become_19_classes(tmp_path: Path, capsys):
    data = write_cityscapes(tmp_path / "city")
    words = "--layout cityscapes --arch resnet18 --batch-size 2 --scale 0.000003 --crop 32 --workers 0 --weights none"
    assert call(segment, "--data", data, *words.split(), "--output-dir", tmp_path / "run") == 0
    assert "77.2" in capsys.readouterr().out
    assert {"IoU/road", "IoU/car"} <= results(tmp_path / "run")["scores"].keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "nowhere"], "no folder nowhere"),
        (["--train-split", "nosplit"], "nosplit.txt"),
        (["--layout", "cityscapes", "--num-classes", "19"], "Cityscapes' layout"),
        (["--weights", "nothing.pth"], "no checkpoint nothing.pth"),
        (["--amp", "fp16"], "--amp fp16 needs a GPU"),
        (["--num-classes", "300"], "at most 255"),
        (["--batch-size", "3", "--nproc", "2"], "cannot be shared"),
    ],
)
def test_wrong_input_is_one_line_code_2_and_nothing_written(program, tmp_path, capsys, options, message):
    assert message in refusal(capsys, program, "--output-dir", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_a_mask_with_a_class_too_many_is_named(program, tmp_path: Path, capsys):
    line = refusal(capsys, program, "--output-dir", tmp_path / "run", "--num-classes", 2)
    assert "has the value" in line and "--num-classes" in line
