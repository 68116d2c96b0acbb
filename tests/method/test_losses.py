"""The losses equal loops written from their formulas, and behave at the edges."""

import math

import pytest
import torch
import torch.nn.functional as F

from pixpro.method.geometry import inside, positive_pairs
from pixpro.method.losses import consistency_loss, contrast_loss

BOXES1 = torch.tensor([[0.0, 0.0, 0.8, 0.8], [0.9, 0.1, 0.2, 0.8], [0.0, 0.0, 0.3, 0.3]])
BOXES2 = torch.tensor([[0.3, 0.2, 1.0, 1.0], [0.1, 0.0, 0.7, 0.9], [0.6, 0.6, 0.9, 0.9]])
SIZE = 4


def cells(seed: int, batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(batch, 6, SIZE, SIZE, generator=generator, dtype=torch.float64), dim=1)


def cosine(x: torch.Tensor, i: int, y: torch.Tensor, j: int) -> float:
    """Of cell i of one map (C, H, W) and cell j of another."""
    return F.cosine_similarity(x.flatten(1)[:, i], y.flatten(1)[:, j], dim=0).item()


def test_consistency_is_minus_two_times_the_mean_cosine_of_the_pairs_averaged_over_images():
    prediction, target, positives = cells(0), cells(1), positive_pairs(BOXES1, BOXES2, SIZE)
    per_image = []
    for b in range(3):
        total, count = 0.0, 0
        for i in range(SIZE**2):
            for j in range(SIZE**2):
                if positives[b, i, j]:
                    total, count = total + cosine(prediction[b], i, target[b], j), count + 1
        per_image.append(total / (count + 1e-6))
    assert positives[0].any() and not positives[2].any(), "one image must be without pairs"
    loss = consistency_loss(prediction, target, positives).item()
    assert loss == pytest.approx(-2 * sum(per_image) / 3, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.3, 0.1])
def test_contrast_is_info_nce_over_the_cells_of_the_same_images_other_view(temperature):
    prediction, target = cells(0), cells(1)
    positives, overlap = positive_pairs(BOXES1, BOXES2, SIZE), inside(BOXES1, BOXES2, SIZE)
    per_image = []
    for b in range(3):
        per_cell = []
        for i in range(SIZE**2):
            if not overlap[b, i]:
                continue
            mass = {True: 0.0, False: 0.0}
            for j in range(SIZE**2):
                mass[positives[b, i, j].item()] += math.exp(cosine(prediction[b], i, target[b], j) / temperature)
            per_cell.append(-math.log(mass[True] / (mass[True] + mass[False])))
        per_image.append(sum(per_cell) / len(per_cell) if per_cell else 0.0)
    assert overlap[0].any() and not overlap[0].all() and not overlap[2].any()
    loss = contrast_loss(prediction, target, positives, overlap, temperature).item()
    assert loss == pytest.approx(sum(per_image) / 3, rel=1e-12)


def test_contrast_leaves_out_cells_that_are_inside_but_have_no_positive():
    prediction, target = cells(0), cells(1)
    positives, overlap = positive_pairs(BOXES1, BOXES2, SIZE), inside(BOXES1, BOXES2, SIZE)
    fewer = positives.clone()
    lost = overlap[0].nonzero()[0].item()
    fewer[0, lost] = False
    without = overlap.clone()
    without[0, lost] = False
    loss = contrast_loss(prediction, target, fewer, overlap)
    assert loss.isfinite() and loss == contrast_loss(prediction, target, positives, without)


@pytest.mark.parametrize("loss", ["consistency", "contrast"])
def test_images_without_overlap_give_zero_with_a_graph_and_finite_gradients(loss):
    prediction = cells(0).requires_grad_()
    none = torch.zeros(3, SIZE**2, SIZE**2, dtype=torch.bool)
    if loss == "consistency":
        value = consistency_loss(prediction, cells(1), none)
    else:
        value = contrast_loss(prediction, cells(1), none, none.any(dim=2))
    value.backward()
    assert value.item() == 0.0
    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


@pytest.mark.parametrize("loss", ["consistency", "contrast"])
def test_an_image_without_overlap_stays_in_the_mean_and_changes_no_other(loss):
    prediction, target = cells(0), cells(1)
    positives, overlap = positive_pairs(BOXES1, BOXES2, SIZE), inside(BOXES1, BOXES2, SIZE)

    def value(part: slice) -> float:
        if loss == "consistency":
            return consistency_loss(prediction[part], target[part], positives[part]).item()
        return contrast_loss(prediction[part], target[part], positives[part], overlap[part]).item()

    assert value(slice(0, 3)) == pytest.approx(value(slice(0, 2)) * 2 / 3, rel=1e-12)


def test_perfect_agreement_is_minus_two_in_one_direction():
    everything = torch.ones(3, SIZE**2, SIZE**2, dtype=torch.bool)
    same = F.normalize(torch.ones(3, 6, SIZE, SIZE, dtype=torch.float64), dim=1)
    assert consistency_loss(same, same, everything).item() == pytest.approx(-2, rel=1e-6)


def test_contrast_is_low_only_where_positives_stand_out():
    positives = torch.eye(SIZE**2, dtype=torch.bool).expand(1, -1, -1)
    overlap = torch.ones(1, SIZE**2, dtype=torch.bool)
    distinct = torch.eye(SIZE**2, dtype=torch.float64)[None]
    collapsed = torch.full((1, SIZE**2, SIZE**2), 1 / SIZE, dtype=torch.float64)
    assert contrast_loss(collapsed, collapsed, positives, overlap).item() == pytest.approx(math.log(SIZE**2))
    assert contrast_loss(distinct, distinct, positives, overlap, 0.05).item() < 1e-6
