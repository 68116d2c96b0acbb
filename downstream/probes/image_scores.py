"""Classes of whole images and a frozen trunk -> accuracy of k-NN and of a linear probe."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from downstream.probes.classifiers import accuracy, fit_linear, knn_scores
from downstream.probes.frozen_trunk import pooled_features
from downstream.probes.labelled import ClassSet, Labelled
from pixpro.errors import UserError


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
        self.classes, self.device = len(data.names), device
        files = data.train + data.test
        features = pooled_features(trunk, [path for path, _ in files], size, device)
        labels = torch.tensor([label for _, label in files])
        count = len(data.train)
        self.train, self.train_labels = features[:count], labels[:count]
        self.test, self.test_labels = features[count:], labels[count:]

    def split(self, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Training features and labels, test features and labels, on the device."""
        kept, held = split(self.train_labels, len(self.test) > 0, seed)
        tests = (self.test, self.test_labels) if len(self.test) > 0 else (self.train[held], self.train_labels[held])
        train, train_labels, test, test_labels = (
            tensor.to(self.device) for tensor in (self.train[kept], self.train_labels[kept], *tests)
        )
        return train, train_labels, test, test_labels


def image_scores(features: ImageFeatureSet, seed: int) -> dict[str, float]:
    """Top-1 accuracy of k-NN and of the linear probe."""
    train, train_labels, test, test_labels = features.split(seed)
    labels = F.one_hot(train_labels, features.classes).float()
    return {
        "image k-NN": accuracy(knn_scores(train, labels, test), test_labels),
        "image linear": accuracy(fit_linear(train, labels, seed)(test), test_labels),
    }
