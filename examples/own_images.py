# %% [markdown]
# # A folder of images: check, plan, pre-train, look, fine-tune
#
# From images without labels to a backbone, and from the backbone to a small segmentation network. The images are the
# built-in scenes, so that everything runs as it is, in 13 minutes of one core's time. For your own images
# change `IMAGES`; for a real run leave out the small settings.

# %%
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import pixpro
from pixpro.method.trunks import OneMap
from pixpro.scenes import CLASSES, sample_scenes

ROOT = Path(pixpro.__file__).parents[1]  # the checkout of the project
SHORT = "PIXPRO_EXAMPLE_SHORT" in os.environ  # a minute instead of ten, to see that everything runs
SCENES = sample_scenes(24, held_out=8) if SHORT else sample_scenes()
IMAGES = SCENES / "train"  # any folder with images, at any depth
RUN = Path("output/own_images")


def run(*words: object) -> None:
    """Run a program of the project, as on the command line, and show what it prints."""
    command = [sys.executable, *map(str, words)]
    where = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=where, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout)
    done.check_returncode()


# %% [markdown]
# ## Check
#
# Every image is decoded once. The report says how large the images are, which files are bad, and how many pairs of
# cells the loss will find in them.

# %%
SIZE = 64 if SHORT else 128
run("-m", "pixpro", "check", IMAGES, "--image_size", SIZE)

# %% [markdown]
# ## Plan
#
# A few real steps, and what the whole run would take on this machine. Nothing is written.

# %%
SETTINGS = [
    *("--data", IMAGES, "--val_data", SCENES / "held_out", "--output_dir", RUN),
    *("--loss", "pixcontrast", "--arch", "resnet18", "--hidden_dim", 512, "--image_size", SIZE),
    *("--batch_size", 4 if SHORT else 16, "--epochs", 1 if SHORT else 9, "--warmup_epochs", 0 if SHORT else 1),
    *("--lr_base", 16, "--momentum_base", 0.9, "--log_every", 1 if SHORT else 20, "--eval_every", 0, "--amp", "off"),
]
TRAIN = ROOT / "train.py"
run(TRAIN, *SETTINGS, "--plan")

# %% [markdown]
# ## Pre-train
#
# PixContrast learns visibly in minutes; PixPro, the default, needs thousands of steps. A run that was interrupted goes
# on with the same command: that is what `--resume auto` is for.

# %%
run(TRAIN, *SETTINGS, "--resume", "auto")

# %% [markdown]
# ## Look at what was learned
#
# The report of the run, and pictures of pairs of crops: which cells show the same place, and what the network takes
# for similar.

# %%
run("-m", "pixpro", "report", RUN)
held_out = sorted((SCENES / "held_out").glob("*.jpg"))
run("-m", "pixpro", "visualize", held_out[0], "--checkpoint", RUN / "last.pth.tar", "--out", RUN / "pictures")
print(*sorted(path.name for path in (RUN / "pictures").iterdir()))

# %% [markdown]
# ## Fine-tune
#
# `load_backbone` gives the library's own model with the pre-trained trunk in it. Here its last map feeds a single
# layer that names the class of each cell, and both are trained on a few labelled scenes. The same is done from weights
# at random, for comparison.


# %%
def labelled(folder: Path, names: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 3, S, S), normalised, and masks (N, S, S) with a class for each pixel; 255 is none."""
    images, masks = [], []
    for name in names:
        with Image.open(folder / "JPEGImages" / f"{name}.jpg") as image:
            images.append(np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)))
        with Image.open(folder / "SegmentationClass" / f"{name}.png") as mask:
            masks.append(np.asarray(mask.resize((SIZE, SIZE), Image.Resampling.NEAREST)))
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1), torch.from_numpy(np.stack(masks)).long()


def names_of(split: str) -> list[str]:
    return (SCENES / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()


def fine_tuned(backbone: nn.Module, steps: int) -> float:
    """Mean IoU on the test scenes after so many steps on the training scenes."""
    torch.manual_seed(0)
    trunk = OneMap(backbone, "c4")  # the map of stride 16: (B, 256, S / 16, S / 16)
    network = nn.Sequential(trunk, nn.Conv2d(trunk.channels, len(CLASSES) + 1, kernel_size=1))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    images, masks = labelled(SCENES, names_of("trainval"))
    for step in range(steps):
        chosen = torch.randint(len(images), (8,))
        scores = F.interpolate(network(images[chosen]), size=(SIZE, SIZE), mode="bilinear")
        loss = F.cross_entropy(scores, masks[chosen], ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - (step + 1) / steps)
    images, masks = labelled(SCENES, names_of("test"))
    network.eval()
    with torch.no_grad():
        found = F.interpolate(network(images), size=(SIZE, SIZE), mode="bilinear").argmax(dim=1)
    overlaps = []
    for number in range(len(CLASSES) + 1):
        both = ((found == number) & (masks == number)).sum().item()
        either = (((found == number) | (masks == number)) & (masks != 255)).sum().item()
        if either:
            overlaps.append(both / either)
    return sum(overlaps) / len(overlaps)


# %%
STEPS = 2 if SHORT else 150
pretrained = pixpro.load_backbone(RUN / "last.pth.tar")
torch.manual_seed(0)
random = pixpro.method.trunks.new_backbone("resnet18")
print(f"mIoU after {STEPS} steps: pre-trained {fine_tuned(pretrained, STEPS):.3f}", end=", ")
print(f"at random {fine_tuned(random, STEPS):.3f}")

# %% [markdown]
# ## Next
#
# * `python -m pixpro export output/own_images/last.pth.tar backbone.pth --format timm` writes the backbone for others.
# * `downstream/segment.py` and `downstream/detect.py` fine-tune whole detectors and segmenters on data sets in VOC's or
#   COCO's layout; `downstream/evaluate.py` measures a backbone without fine-tuning it.
# * `--arch timm/convnext_tiny` pre-trains another backbone (docs/backbones.md).
