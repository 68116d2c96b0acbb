"""A trunk and a data set with labels -> its scores: frozen, fine-tuned as an FCN on masks or a detector on boxes."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from benchmarks.evidence.data import Photographs
from benchmarks.evidence.pretrain import Scale
from benchmarks.evidence.trunk import SMALL, maps_until, trunk_model
from downstream.common.pictures import image_files
from downstream.detection.data import grouped_batches, loader
from downstream.probes.frozen_trunk import central_views
from downstream.probes.image_scores import ImageFeatureSet, image_scores
from downstream.probes.mask_scores import DenseFeatureSet, count_classes, dense_scores
from downstream.segmentation.data import TrainCrops, WholeImages
from downstream.segmentation.labels import SegmentationSet
from downstream.segmentation.masks import voc_pairs
from downstream.segmentation.net import pixel_loss
from downstream.segmentation.scores import scores, tested
from pixpro.data.augment import MEAN, STD
from pixpro.data.held_out import held_out_pairs
from pixpro.method.numerics import batch_statistics
from pixpro.monitor.matching import matching_scores
from pixpro.training.processes import Process

ROOT = Path(__file__).resolve().parents[2]
CELLS = 8000  # of the training images, for the dense probes
CALIBRATION = 256  # images that give an untrained trunk the statistics that training would have
LR, DECAY = 0.02, 1e-4  # of the fine-tuned FCN, at 8 crops
# 300 iterations of 2 images: as far as a core comes in five minutes
DETECTION = (
    "--train-split trainval --test-split test --batch-size 2 --scale 0.0015625 --train-sizes 240 272 304 "
    "--test-size 304 --regions 64 --test-proposals 100 --precise-bn 20"
)


def scores_of(
    scale: Scale, checkpoint: Path | None, data: Photographs, *, seed: int, folder: Path, fine_tune: bool = True
) -> dict[str, float]:
    """Every score that the data set's labels allow, in 0..1."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # detectors and FCNs start from stage 4 (stride 16) of a ResNet, images are told by its stage 5
    dense = maps_until(trunk_model(scale.arch, checkpoint, seed), "layer4" if scale.arch == SMALL else "layer3")
    whole = maps_until(trunk_model(scale.arch, checkpoint, seed))
    if checkpoint is None:
        files = image_files(data.images)[:CALIBRATION]
        for trunk in (dense, whole):
            update_bn(central_views(files, scale.image_size), trunk)
    dense, whole = dense.to(device), whole.to(device)
    scores = matching(dense, data, scale.image_size, device)
    if data.classes:
        scores |= image_scores(ImageFeatureSet(whole, data.classes, scale.image_size, device), seed)
    if data.masks:
        sets = [
            DenseFeatureSet(dense, pairs, 2 * scale.image_size, device) for pairs in (data.masks.train, data.masks.test)
        ]
        classes = count_classes(data.masks.train + data.masks.test)
        scores |= dense_scores(*sets, classes, seed=seed, limit=CELLS)
        if fine_tune:
            scores |= fine_tuned_iou(dense, data, *scale.segmentation, seed)
    if data.boxes and fine_tune and scale.arch != SMALL:
        given = ("--data", data.root, "--weights", checkpoint or "none", "--arch", scale.arch, "--seed", seed)
        found = detected(folder / f"detection-{data.name}", *given, *DETECTION.split())["scores"]
        scores |= {f"detection {name}": found[name] / 100 for name in ("AP", "AP50")}
    return scores


def matching(trunk: nn.Module, data: Photographs, size: int, device: torch.device) -> dict[str, float]:
    """Dense matching on test images, of two views of each, the same for all trunks."""
    tests = data.classes.test if data.classes else data.masks.test if data.masks else []
    if not tests:
        return {}
    pairs = held_out_pairs([image for image, _ in tests[:: max(1, len(tests) // 128)]][:128], size)
    with batch_statistics(trunk):
        score = matching_scores(lambda views: {"trunk": trunk(views.to(device))}, pairs)["trunk"]
    return {"dense matching": score.accuracy, "dense matching by chance": score.chance}


class SmallFCN(nn.Module):
    """A trunk with a head of one 3x3 convolution -> scores of pixels; what FCN of segment.py is for ResNets."""

    def __init__(self, trunk: nn.Module, channels: int, classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        hidden = nn.Conv2d(channels, 128, 3, padding=2, dilation=2, bias=False)
        self.head = nn.Sequential(hidden, nn.BatchNorm2d(128), nn.ReLU(), nn.Conv2d(128, classes, 1))
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1) * 255)

    def forward(self, images: list[Tensor]) -> Tensor:
        """Scores (B, classes, H, W) of images (3, H, W) of one size in 0..255."""
        batch = (torch.stack(list(images)).float() - self.mean) / self.std
        return F.interpolate(self.head(self.trunk(batch)), batch.shape[2:], mode="bilinear", align_corners=False)


def fine_tuned_iou(
    trunk: nn.Module, data: Photographs, iterations: int, batch: int, crop: int, every: int, seed: int
) -> dict[str, float]:
    """mIoU and pixel accuracy after so many iterations from the trunk, in 0..1; the trunk is trained.

    every: which of the test images count, every second one with 2.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    process = Process(rank=0, world_size=1, local_world_size=1, device=device)
    classes = count_classes(data.masks.train + data.masks.test)
    pairs = voc_pairs(data.root, "trainval"), voc_pairs(data.root, "test")[::every]
    images = SegmentationSet(*pairs, range(classes), [str(label) for label in range(classes)])
    torch.manual_seed(seed)
    with torch.no_grad():
        channels = trunk.eval().cpu()(torch.zeros(1, 3, 64, 64)).shape[1]
    model = SmallFCN(trunk.requires_grad_(True), channels, classes).train().to(device)
    peak = LR * batch / 8
    optimizer = torch.optim.SGD(model.parameters(), peak, 0.9, weight_decay=DECAY)
    order = grouped_batches([0] * len(images.train), batch=batch, seed=seed, rank=0, world_size=1)
    batches = loader(TrainCrops(images, crop=crop, seed=seed), islice(order, iterations), 0)
    for step, (pixels, targets) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = peak * 0.1 ** sum(step >= share * iterations for share in (0.7, 0.9))
        masks = torch.stack([target["mask"] for target in targets]).to(device)
        loss = pixel_loss(model([image.to(device) for image in pixels]), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = scores(tested(model, WholeImages(images), process=process, workers=0), images.class_names)
    return {"fine-tuned FCN": found["mIoU"] / 100, "fine-tuned FCN, pixels": found["pixel accuracy"] / 100}


def detected(folder: Path, *given: object) -> dict:
    """What `downstream/detect.py` with these settings leaves in its folder's results.json, made unless it is there."""
    if not (folder / "results.json").exists():
        command = [
            sys.executable,
            ROOT / "downstream" / "detect.py",
            *given,
            "--output-dir",
            folder,
            "--resume",
            "auto",
        ]
        subprocess.run([str(word) for word in command], check=True)
    return json.loads((folder / "results.json").read_text())
