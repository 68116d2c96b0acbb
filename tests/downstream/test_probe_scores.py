"""Scores of a trunk on masks and classes: each by its definition, high where colours tell, the same from a seed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from downstream.probes.image_scores import ImageFeatureSet, image_scores, split, train_classifier
from downstream.probes.labelled import class_folders
from downstream.probes.mask_scores import DenseFeatureSet, cell_labels, count_classes, dense_scores, segmentation_score
from pixpro.errors import UserError
from tests.helpers import pictures

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def colour_classes(tmp_path_factory):
    return pictures.colour_classes(tmp_path_factory.mktemp("classes"))


class ColourTrunk(torch.nn.Module):
    """A stand-in for a trunk whose features are the mean colours of the cells."""

    def forward(self, images):
        return F.avg_pool2d(images, 32)


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
    assert (layer(features.features).argmax(1) == features.labels).all()


def test_splits_are_disjoint_stratified_and_follow_the_seed():
    labels = torch.tensor([0] * 10 + [1] * 5 + [2])
    kept, held = split(labels, has_tests=False, seed=3)
    assert sorted(torch.cat((kept, held)).tolist()) == list(range(16))
    assert labels[held].bincount().tolist() == [2, 1]
    assert torch.equal(split(labels, False, 3)[1], held) and not torch.equal(split(labels, False, 4)[1], held)
    assert len(split(labels, has_tests=True, seed=0)[0]) == 14
    with pytest.raises(UserError, match="single image"):
        split(torch.tensor([0, 1]), False, 0)
