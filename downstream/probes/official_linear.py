"""The linear probe as published: SGD on augmented images through the frozen trunk, for numbers to set beside others'.

Settings of zdaxie/PixPro, main_linear.py: lr 30 for batch 256, momentum 0.9, no weight decay, 100 epochs, 5 of them
warm-up from lr / 100, then cosine; random resized crops of 0.08 to 1 of the area and flips. One difference: the trunk
stays in evaluation mode here, there its BatchNorm keeps moving.
"""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from downstream.common.pictures import read_picture
from downstream.common.precision import sent
from downstream.probes.classifiers import accuracy
from downstream.probes.frozen_trunk import normalised, pooled_features
from downstream.probes.labelled import Labelled
from pixpro.data.cores import available_cores
from pixpro.data.views import crop_pixels, draw_crop
from pixpro.training.schedules import warmup_cosine_lr


def augmented(item: Labelled, size: int, key: str) -> Tensor:
    """A random crop of the image file, maybe flipped, normalised: (3, size, size)."""
    rng = random.Random(key)
    image = read_picture(item[0])
    crop = draw_crop(rng, *image.shape[1:])
    return normalised(crop_pixels(image, crop, rng.random() < 0.5, size).permute(2, 0, 1))


def train_classifier(
    trunk: nn.Module,
    files: Sequence[Labelled],
    classes: int,
    *,
    size: int,
    epochs: int,
    seed: int,
    device: torch.device,
    batch_size: int = 256,
    lr: float = 30.0,
) -> nn.Linear:
    """The linear layer on pooled features after training; fewer images than a batch make one batch."""
    with torch.no_grad():
        channels = trunk(torch.zeros(1, 3, 64, 64, device=device)).shape[1]
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(channels, classes)
    nn.init.normal_(layer.weight, std=0.01, generator=generator)
    nn.init.zeros_(layer.bias)
    layer.to(device)
    optimizer = torch.optim.SGD(layer.parameters(), lr=lr, momentum=0.9)
    steps = max(1, len(files) // batch_size)
    with ThreadPoolExecutor(available_cores()) as pool:
        for epoch in range(epochs):
            order = torch.randperm(len(files), generator=generator).tolist()
            for step in range(steps):
                chosen = order[step * batch_size : (step + 1) * batch_size]
                keys = [f"linear {seed} {epoch} {index}" for index in chosen]
                images = pool.map(augmented, [files[i] for i in chosen], [size] * len(chosen), keys)
                batch = sent(torch.stack(list(images)), device)
                labels = sent(torch.tensor([files[i][1] for i in chosen]), device)
                with torch.no_grad():
                    features = trunk(batch).mean(dim=(2, 3)).float()
                for group in optimizer.param_groups:
                    warmup = min(5, epochs - 1) * steps
                    now = epoch * steps + step
                    group["lr"] = warmup_cosine_lr(now, base_lr=lr, total_steps=epochs * steps, warmup_steps=warmup)
                optimizer.zero_grad()
                F.cross_entropy(layer(features), labels).backward()
                optimizer.step()
    return layer.requires_grad_(False)


def official_linear_score(
    trunk: nn.Module,
    train: Sequence[Labelled],
    test: Sequence[Labelled],
    classes: int,
    *,
    size: int,
    epochs: int,
    seed: int,
    device: torch.device,
) -> float:
    """Top-1 accuracy on the central views of the test images."""
    layer = train_classifier(trunk, train, classes, size=size, epochs=epochs, seed=seed, device=device)
    features = pooled_features(trunk, [path for path, _ in test], size, device)
    return accuracy(layer.cpu()(features), torch.tensor([label for _, label in test]))
