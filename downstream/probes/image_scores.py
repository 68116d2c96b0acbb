"""Classes of whole images and a frozen trunk -> accuracy of k-NN and of linear probes, ours and the published one."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from downstream.common.pictures import read_picture
from downstream.common.precision import sent
from downstream.probes.classifiers import accuracy, fit_linear, knn_scores
from downstream.probes.frozen_trunk import normalised, pooled_features
from downstream.probes.labelled import ClassSet, Labelled
from pixpro.data.cores import available_cores
from pixpro.data.views import crop_pixels, draw_crop
from pixpro.errors import UserError
from pixpro.training.schedules import warmup_cosine_lr


def split(labels: Tensor, has_tests: bool, seed: int) -> tuple[Tensor, Tensor]:
    """Which training images the seed picks for training, and which for testing if there are no test images: indices.

    With test images: nine tenths of the training images. Without: of each class four fifths, the rest for testing.
    """
    generator = torch.Generator().manual_seed(seed)
    if has_tests:
        order = torch.randperm(len(labels), generator=generator)
        return order[: max(1, round(0.9 * len(order)))], order[:0]
    kept, held = [], []
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        members = members[torch.randperm(len(members), generator=generator)]
        count = max(1, round(0.2 * len(members))) if len(members) > 1 else 0
        held.append(members[:count])
        kept.append(members[count:])
    if not any(map(len, held)):
        raise UserError("each class has a single image: none can be held out for testing")
    return torch.cat(kept), torch.cat(held)


def split_files(data: ClassSet, seed: int) -> tuple[list[Labelled], list[Labelled]]:
    """Files and labels for training and for testing, as `split` picks them."""
    kept, held = split(torch.tensor([label for _, label in data.train]), bool(data.test), seed)
    return [data.train[i] for i in kept], data.test or [data.train[i] for i in held]


class ImageFeatureSet:
    """Pooled features of every image of a data set, computed once for all probes and seeds."""

    def __init__(self, trunk: nn.Module, data: ClassSet, size: int, device: torch.device) -> None:
        self.classes, self.device, self.count = len(data.names), device, len(data.train)
        files = data.train + data.test
        self.features = pooled_features(trunk, [path for path, _ in files], size, device)
        self.labels = torch.tensor([label for _, label in files])

    def split(self, seed: int) -> tuple[Tensor, ...]:
        """Training features and labels, test features and labels, on the device."""
        tests = torch.arange(self.count, len(self.labels))
        kept, held = split(self.labels[: self.count], len(tests) > 0, seed)
        chosen = (kept, tests if len(tests) > 0 else held)
        return tuple(part[index].to(self.device) for index in chosen for part in (self.features, self.labels))


def image_scores(features: ImageFeatureSet, seed: int) -> dict[str, float]:
    """Top-1 accuracy of k-NN and of the linear probe."""
    train, train_labels, test, test_labels = features.split(seed)
    labels = F.one_hot(train_labels, features.classes).float()
    return {
        "image k-NN": accuracy(knn_scores(train, labels, test), test_labels),
        "image linear": accuracy(fit_linear(train, labels, seed)(test), test_labels),
    }


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
    """The linear layer on pooled features after SGD on augmented images; fewer images than a batch make one batch.

    Settings of zdaxie/PixPro, main_linear.py: lr 30 for batch 256, momentum 0.9, no weight decay, 100 epochs, 5 of them
    warm-up from lr / 100, then cosine; random resized crops of 0.08 to 1 of the area and flips. One difference: the
    trunk stays in evaluation mode here, there its BatchNorm keeps moving.
    """
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
    trunk: nn.Module, data: ClassSet, *, size: int, epochs: int, seed: int, device: torch.device
) -> float:
    """Top-1 accuracy of the published probe, on the central views of the test images."""
    train, test = split_files(data, seed)
    layer = train_classifier(trunk, train, len(data.names), size=size, epochs=epochs, seed=seed, device=device)
    features = pooled_features(trunk, [path for path, _ in test], size, device)
    return accuracy(layer.cpu()(features), torch.tensor([label for _, label in test]))
