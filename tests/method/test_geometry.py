"""Cells, distances and pairs equal loops written from the definition."""

import math

import pytest
import torch

from pixpro.method.encoder import Encoder
from pixpro.method.geometry import cell_centers, cells_along, inside, pair_distances, positive_pairs

BOXES1 = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.9, 0.1, 0.2, 0.8], [10.0, 20.0, 110.0, 60.0], [0.0, 0.0, 0.3, 0.3]])
BOXES2 = torch.tensor([[0.25, 0.5, 0.75, 1.0], [0.1, 0.0, 0.7, 0.9], [90.0, 0.0, 40.0, 90.0], [0.6, 0.6, 0.9, 0.9]])


def centers_by_loops(box, height, width):
    x0, y0, x1, y1 = box
    return [
        (x0 + (u + 0.5) * (x1 - x0) / width, y0 + (v + 0.5) * (y1 - y0) / height)
        for v in range(height)
        for u in range(width)
    ]


@pytest.mark.parametrize(("height", "width"), [(7, 7), (3, 5), (1, 1)])
def test_cell_centers_are_bin_centers_row_by_row_like_flatten(height, width):
    centers = cell_centers(BOXES1.double(), (height, width))
    for box, found in zip(BOXES1.double().tolist(), centers.tolist(), strict=True):
        assert found == [pytest.approx(center) for center in centers_by_loops(box, height, width)]


def test_a_flipped_box_counts_cells_from_the_right():
    centers = cell_centers(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), 2)
    assert centers.tolist() == [[[0.75, 0.25], [0.25, 0.25], [0.75, 0.75], [0.25, 0.75]]]


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_pairs_are_cells_closer_than_the_threshold_in_units_of_the_larger_diagonal(threshold):
    positives = positive_pairs(BOXES1.double(), BOXES2.double(), 7, threshold)
    assert positives.dtype == torch.bool and positives.shape == (4, 49, 49)
    for b in range(4):
        box1, box2 = BOXES1[b].tolist(), BOXES2[b].tolist()
        diagonal = max(math.hypot(*((box[2] - box[0]) / 7, (box[3] - box[1]) / 7)) for box in (box1, box2))
        for i, (x1, y1) in enumerate(centers_by_loops(box1, 7, 7)):
            for j, (x2, y2) in enumerate(centers_by_loops(box2, 7, 7)):
                assert positives[b, i, j] == (math.hypot(x1 - x2, y1 - y2) / diagonal < threshold)
    assert positives[0].any() and not positives[3].any()


def test_rows_belong_to_the_first_view():
    """Transposed positives are a known mistake: swapping the views must transpose the pairs, and they differ."""
    forward, backward = positive_pairs(BOXES1, BOXES2, 7), positive_pairs(BOXES2, BOXES1, 7)
    assert torch.equal(forward, backward.transpose(1, 2))
    assert not torch.equal(forward, backward)


def test_the_threshold_is_strict():
    box = torch.tensor([[0.0, 0.0, 3.0, 4.0]])  # one cell of diagonal 5
    shifted = box + torch.tensor([2.5, 0.0, 2.5, 0.0])
    assert pair_distances(box, shifted, 1).item() == 0.5
    assert not positive_pairs(box, shifted, 1, threshold=0.5).any()
    assert positive_pairs(box, shifted, 1, threshold=0.5001).all()


def test_about_five_percent_of_random_pairs_are_positive():
    """A wrong diagonal is a known mistake: it made 74 % of the pairs positive."""
    generator = torch.Generator().manual_seed(0)
    corners, sides = torch.rand(2000, 2, generator=generator), 0.3 + 0.65 * torch.rand(2000, 2, generator=generator)
    boxes = torch.cat((corners * (1 - sides), corners * (1 - sides) + sides), dim=1)
    share = positive_pairs(boxes[:1000], boxes[1000:], 7).float().mean().item()
    assert 0.02 < share < 0.09


def test_boxes_without_extent_have_no_pairs():
    point = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    assert not positive_pairs(point, point, 7).any()


def test_inside_finds_the_cells_whose_center_the_other_view_shows():
    found = inside(BOXES1, BOXES2, 5)
    for b in range(4):
        x0, y0, x1, y1 = BOXES2[b].tolist()
        for i, (x, y) in enumerate(centers_by_loops(BOXES1[b].tolist(), 5, 5)):
            assert found[b, i] == (min(x0, x1) <= x <= max(x0, x1) and y0 <= y <= y1)
    assert found[0].any() and not found[0].all()


@pytest.mark.parametrize("side", [32, 33, 64, 80, 100])
def test_the_cells_along_a_side_are_those_of_the_maps(side):
    pixels = torch.zeros(1, 3, side, side)
    trunk, pyramid = Encoder("resnet18", 4, 4), Encoder("resnet18", 4, 4, neck="fpn", levels=[3, 4])
    with torch.no_grad():
        assert trunk.eval()(pixels).maps[-1].shape[2:] == (cells_along(side, 2**trunk.level),) * 2
        assert pyramid.eval()(pixels).maps[-1].shape[2:] == (cells_along(side, 2**pyramid.level),) * 2
