"""A trunk fine-tuned on labels: an FCN on masks, scored by mIoU, and detect.py's detector on boxes, scored by AP."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.evidence.data import Photographs
from downstream.detection.data import grouped_batches, loader
from downstream.probes.mask_scores import count_classes
from downstream.segmentation.data import TrainCrops, WholeImages
from downstream.segmentation.labels import SegmentationSet
from downstream.segmentation.masks import voc_pairs
from downstream.segmentation.net import pixel_loss
from downstream.segmentation.scores import scores, tested
from pixpro.data.augment import MEAN, STD
from pixpro.training.processes import Process

ROOT = Path(__file__).resolve().parents[2]
LR, DECAY = 0.02, 1e-4  # at 8 crops
# 300 iterations of 2 images: as far as a core comes in five minutes
DETECTION = (
    "--train-split trainval --test-split test --batch-size 2 --scale 0.0015625 --train-sizes 240 272 304 "
    "--test-size 304 --regions 64 --test-proposals 100 --precise-bn 20"
)


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
    trunk: nn.Module, data: Photographs, *, iterations: int, batch: int, crop: int, every: int, seed: int
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


def detection_ap(checkpoint: Path | None, arch: str, data: Photographs, *, seed: int, folder: Path) -> dict[str, float]:
    """AP and AP50 of `downstream/detect.py` from a trunk, in 0..1; its folder is kept, and not repeated."""
    if not (folder / "results.json").exists():
        given = ["--data", data.root, "--weights", checkpoint or "none", "--arch", arch, "--seed", seed]
        command = [sys.executable, ROOT / "downstream" / "detect.py", *given, *DETECTION.split()]
        command += ["--output-dir", folder, "--resume", "auto"]
        subprocess.run([str(word) for word in command], check=True)
    found = json.loads((folder / "results.json").read_text())["scores"]
    return {f"detection {name}": found[name] / 100 for name in ("AP", "AP50")}
