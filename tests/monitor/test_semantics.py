"""How well a linear classifier names cells: its parts against definitions, the score on features that are known."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pixpro.monitor.semantics import (
    MaskedImages,
    balanced_accuracy,
    encoder_semantics,
    labelled_cells,
    open_masks,
    ridge_scores,
)
from pixpro.scenes import write_scenes


def test_the_classifier_solves_the_weighted_least_squares_problem():
    generator = torch.Generator().manual_seed(0)
    features, queries = torch.randn(60, 4, generator=generator) * 3 + 1, torch.randn(7, 4, generator=generator)
    classes = torch.tensor([0] * 40 + [1] * 15 + [2] * 5)
    found = ridge_scores(features, classes, queries, penalty=0.3)

    x, q = features.double().numpy(), queries.double().numpy()
    mean, scale = x.mean(0), x.std(0)
    x, q = (x - mean) / scale, (q - mean) / scale
    counts = np.array([40, 15, 5])
    rows = np.sqrt(1 / (3 * counts[classes.numpy()]))[:, None]  # each class weighs a third
    stacked = np.vstack([rows * np.column_stack([x, np.ones(60)]), np.sqrt(0.3) * np.eye(4, 5)])
    wanted = np.vstack([rows * np.eye(3)[classes.numpy()], np.zeros((4, 3))])
    solution = np.linalg.lstsq(stacked, wanted, rcond=None)[0]
    np.testing.assert_allclose(found, np.column_stack([q, np.ones(7)]) @ solution, atol=1e-10)


def test_each_class_counts_alike_in_the_accuracy():
    scores = torch.eye(3)[torch.tensor([0, 0, 1, 2, 2, 1])]
    assert balanced_accuracy(scores, torch.tensor([0, 0, 0, 2, 2, 2])) == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert balanced_accuracy(scores, torch.tensor([0, 0, 1, 2, 2, 0])) == pytest.approx((2 / 3 + 1 + 1) / 3)


def test_a_cell_has_the_class_of_the_pixel_in_its_middle_and_unknown_ones_are_left_out():
    classes = torch.arange(64).view(1, 8, 8) % 5
    classes[0, 1, 1] = 255
    pixels = torch.zeros(1, 3, 8, 8)
    places = torch.arange(16.0).view(1, 1, 4, 4)
    features, labels = labelled_cells(lambda images: places, MaskedImages(pixels, classes), per_class=99, seed=0)
    found = {int(place): int(label) for place, label in zip(features[:, 0], labels, strict=True)}
    expected = {4 * i + j: int(classes[0, 2 * i + 1, 2 * j + 1]) for i in range(4) for j in range(4)}
    assert found == {place: label for place, label in expected.items() if label != 255}
    few, labels = labelled_cells(lambda images: places, MaskedImages(pixels, classes), per_class=2, seed=0)
    assert labels.bincount().max() == 2 and len(few.unique()) == len(few)


class Shows(nn.Module):
    """An encoder whose cells are the mean colours of 8 x 8 pixels."""

    dense = "c3"

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def features(self, images):
        return {"c3": nn.functional.avg_pool2d(images * self.weight, 8)}


def coloured(count: int, seed: int) -> MaskedImages:
    """Images in whose tiles of 16 pixels the red channel tells the class."""
    classes = torch.randint(0, 3, (count, 2, 2), generator=torch.Generator().manual_seed(seed))
    classes = classes.repeat_interleave(16, dim=1).repeat_interleave(16, dim=2)
    pixels = torch.stack([(classes == label).float() for label in range(3)], dim=1)
    return MaskedImages(pixels, classes)


def test_cells_that_show_their_class_are_named_and_blind_ones_score_chance():
    train, test = coloured(50, 0), coloured(20, 1)
    seeing = encoder_semantics(Shows(), train, test)
    assert (seeing.accuracy, seeing.images) == (1.0, 20)
    assert seeing.chance == pytest.approx(1 / 3)
    blind = MaskedImages(torch.randn(20, 3, 32, 32), test.classes)
    assert encoder_semantics(Shows(), train, blind).accuracy == pytest.approx(1 / 3, abs=0.1)


def test_masks_of_scenes_are_read_beside_their_images(tmp_path):
    folder = write_scenes(tmp_path / "scenes", 6, held_out=2)
    train, test = open_masks(folder, 32)
    assert (len(train.pixels), len(test.pixels)) == (4, 2)
    assert train.pixels.shape[1:] == (3, 64, 64) and train.classes.shape[1:] == (64, 64)
    names = (folder / "ImageSets" / "Segmentation" / "test.txt").read_text().split()
    mask = np.asarray(Image.open(folder / "SegmentationClass" / f"{names[1]}.png"))
    rows, columns = (((np.arange(64) + 0.5) * side / 64).astype(int) for side in mask.shape)
    np.testing.assert_array_equal(test.classes[1].numpy(), mask[np.ix_(rows, columns)])
