"""Rank, spread, evenness and pair counts equal plain formulas and loops over all cells."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pixpro.monitor.health import effective_rank, evenness, pair_numbers, spread, within_images


def test_the_effective_rank_is_1_for_one_direction_and_the_dimension_for_even_ones():
    assert effective_rank(torch.eye(8)[torch.zeros(50, dtype=torch.long)]).item() == pytest.approx(1, abs=1e-4)
    assert effective_rank(torch.eye(8).repeat(5, 1)).item() == pytest.approx(8, rel=1e-5)
    # Three quarters along one axis, one quarter along another: exp of that entropy.
    cells = torch.eye(4)[[0, 0, 0, 1]]
    assert effective_rank(cells).item() == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


@pytest.mark.parametrize("count", [6, 40])
def test_the_effective_rank_equals_that_of_the_singular_values(count):
    cells = F.normalize(torch.randn(count, 12, generator=torch.Generator().manual_seed(0)), dim=1)
    shares = np.linalg.svd(cells.numpy(), compute_uv=False) ** 2
    shares /= shares.sum()
    assert effective_rank(cells).item() == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), rel=1e-4)


def test_one_direction_with_noise_has_a_rank_near_1():
    cells = torch.ones(500, 64) + 0.02 * torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    assert effective_rank(F.normalize(cells, dim=1)).item() < 1.01


def test_features_that_are_not_finite_have_no_rank():
    assert math.isnan(effective_rank(torch.tensor([[1.0, math.nan], [0.0, 1.0]])).item())


def test_the_spread_is_1_over_the_whole_sphere_and_0_for_one_direction():
    generator = torch.Generator().manual_seed(0)
    even = spread("target", torch.randn(32, 64, 7, 7, generator=generator))
    assert even["target_std"].item() == pytest.approx(1, abs=0.02)
    one = spread("target", torch.randn(1, 64, 1, 1, generator=generator).expand(32, 64, 7, 7))
    assert one["target_std"].item() < 1e-3 and one["target_rank"].item() == pytest.approx(1, abs=1e-3)


def test_the_spread_equals_loops_over_all_cells_and_channels():
    maps = torch.randn(3, 5, 2, 4, generator=torch.Generator().manual_seed(0))
    cells = [maps[b, :, y, x] / maps[b, :, y, x].norm() for b in range(3) for y in range(2) for x in range(4)]
    deviations = [np.std([cell[channel].item() for cell in cells]) for channel in range(5)]
    assert spread("x", maps)["x_std"].item() == pytest.approx(np.mean(deviations) * math.sqrt(5), rel=1e-5)


def slow_within_images(maps: torch.Tensor) -> tuple[float, float]:
    """Spread and rank within images by loops over all cells, from the definition."""
    differences, energy_of_means = [], 0.0
    for image in maps:
        cells = [image[:, y, x].numpy() for y in range(image.shape[1]) for x in range(image.shape[2])]
        cells = [cell / np.linalg.norm(cell) for cell in cells]
        mean = sum(cells) / len(cells)
        differences += [cell - mean for cell in cells]
        energy_of_means += len(cells) * mean @ mean
    deviations = [math.sqrt(np.mean([d[channel] ** 2 for d in differences])) for channel in range(maps.shape[1])]
    energies = np.linalg.svd(np.array(differences), compute_uv=False) ** 2
    shares = np.append(energies, energy_of_means) / (energies.sum() + energy_of_means)
    return np.mean(deviations) * math.sqrt(maps.shape[1]), math.exp(-sum(p * math.log(p) for p in shares if p > 0))


def test_spread_and_rank_within_images_equal_loops_from_the_definition():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 5, 2, 4, generator=generator) + 2 * torch.randn(3, 5, 1, 1, generator=generator)
    found = within_images(maps)
    deviation, rank = slow_within_images(maps)
    assert found["within_image_std"].item() == pytest.approx(deviation, rel=1e-4)
    assert found["within_image_rank"].item() == pytest.approx(rank, rel=1e-4)


def test_maps_that_are_constant_in_each_image_have_a_full_rank_but_none_within_images():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(64, 16, 1, 1, generator=generator).expand(64, 16, 4, 4)
    noisy = maps + 0.02 * torch.randn(64, 16, 4, 4, generator=generator)
    for each in (maps, noisy):
        assert spread("target", each)["target_rank"].item() > 12 and spread("target", each)["target_std"].item() > 0.9
        assert within_images(each)["within_image_rank"].item() < 1.02
        assert within_images(each)["within_image_std"].item() < 0.03


def test_maps_of_a_single_cell_have_no_rank_within_images():
    assert within_images(torch.randn(4, 8, 1, 1)) == {}


def test_cells_of_large_batches_are_taken_from_all_places():
    # Only the last place of each 4 x 4 map varies: a sample that kept missing it would find no spread.
    maps = torch.zeros(1024, 8, 4, 4)
    maps[:, 0] = 1
    maps[:, :, 3, 3] = torch.randn(1024, 8, generator=torch.Generator().manual_seed(0))
    assert spread("x", maps)["x_std"].item() == pytest.approx(spread("x", maps[:64])["x_std"].item(), rel=0.2)


def test_evenness_is_0_for_one_source_1_for_all_and_the_entropy_between():
    assert evenness(torch.eye(9)[None]).item() == 0
    assert evenness(torch.full((2, 9, 9), 0.3)).item() == pytest.approx(1)
    rows = torch.tensor([[[3.0, 1.0], [1.0, 3.0]]])
    expected = (-0.75 * math.log(0.75) - 0.25 * math.log(0.25)) / math.log(2)
    assert evenness(rows).item() == pytest.approx(expected)
    assert evenness(torch.full((2, 1, 1), 0.3)).item() == 1


def test_pair_numbers_count_positives_and_images_without_any():
    near, far = torch.tensor([0.0, 0.0, 0.4, 0.4]), torch.tensor([0.6, 0.6, 1.0, 1.0])
    numbers = pair_numbers(torch.stack([near, near]), torch.stack([near, far]), (3, 3), 0.7)
    # Cells of equal boxes are their own partners; a side neighbour is 1 / sqrt(2) = 0.707 diagonals away.
    assert numbers["positives"].item() == 4.5 and numbers["without_overlap"].item() == 0.5
