"""The numbers of a step equal plain formulas, and looking at a step changes nothing about it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pixpro import PixContrast, PixPro
from pixpro.data.views import View
from pixpro.method.geometry import positive_pairs
from pixpro.monitor.health import effective_rank, evenness, health, observe, pair_numbers, spread, within_images
from pixpro.training.optim import LARS, parameter_groups
from tests.helpers.small_runs import Pictures, Unpropagated, rows_of, shrink, small_trainer

OVERLAPPING = torch.tensor([[0.0, 0.0, 0.9, 0.9], [0.8, 0.2, 0.1, 1.0]]), torch.tensor([[0.1, 0.1, 1.0, 1.0]] * 2)


def views() -> tuple[View, View]:
    generator = torch.Generator().manual_seed(1)
    return tuple(View(torch.randn(2, 3, 64, 64, generator=generator), box) for box in OVERLAPPING)


def build(method=PixPro, **options):
    torch.manual_seed(0)
    return shrink(method("resnet18", hidden_dim=16, dim=64, **options))


def lars(model: nn.Module) -> LARS:
    return LARS(parameter_groups(model, 0.01), lr=0.5)


def watched_step(model, optimizer, *pairs):
    """Health of one optimizer step over micro-batches."""
    optimizer.zero_grad()
    with observe(model) as seen:
        for pair in pairs or [views()]:
            model(*pair).backward()
        optimizer.step()
    return {name: value.item() for name, value in health(seen, model, optimizer).items()}


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


@pytest.mark.parametrize("method", [PixPro, PixContrast])
def test_the_numbers_are_those_of_the_step(method):
    model = build(method)
    optimizer = lars(model)
    pair = views()
    targets = torch.cat([model.momentum_encoder(view.pixels).maps[0] for view in pair])
    projections = [model.encoder(view.pixels).maps[0] for view in pair]
    predictions = torch.cat([model.predict(cells) for cells in projections])
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    found = watched_step(model, optimizer, pair)

    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    ratios = [
        0.001 * weights[name].norm() / (gradient + 0.01 * weights[name]).norm()
        for name, gradient in gradients.items()
        if gradient.ndim > 1
    ]
    expected = {
        **{name: value.item() for name, value in spread("target", targets).items()},
        **{name: value.item() for name, value in spread("prediction", predictions).items()},
        **{name: value.item() for name, value in within_images(targets).items()},
        "positives": positive_pairs(*OVERLAPPING, 4, 0.7).sum().item() / 2,
        "without_overlap": 0.0,
        "grad_norm": torch.cat([gradient.flatten() for gradient in gradients.values()]).norm().item(),
        "trust_min": min(ratios).item(),
        "trust_median": sorted(ratios)[(len(ratios) - 1) // 2].item(),
        "update_size": 0.5 * 0.001,
    }
    if method is PixPro:
        expected["propagation_entropy"] = evenness(model.propagation.similarity(projections[0])).item()
    assert found == pytest.approx(expected, rel=1e-3)
    step = (model.encoder.conv1.weight - weights["encoder.conv1.weight"]).norm() / weights[
        "encoder.conv1.weight"
    ].norm()
    assert step.item() == pytest.approx(found["update_size"], rel=1e-3)


def test_without_lars_the_step_of_the_middle_matrix_is_told():
    model = build()
    sizes = {name: p.norm().item() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    found = watched_step(model, optimizer)
    matrices = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None and p.ndim > 1}
    changes = sorted(1e-6 * norm / sizes[name] for name, norm in matrices.items())
    assert found["update_size"] == pytest.approx(changes[(len(changes) - 1) // 2], rel=1e-4)
    assert "trust_min" not in found


def test_of_adamw_a_tenth_of_the_step_is_told_as_it_sums_up_no_ten_of_them():
    model = build()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    groups = [{"params": [p for p in model.parameters() if p.requires_grad], "weight_decay": 0.0}]
    found = watched_step(model, torch.optim.AdamW(groups, lr=1e-4))
    moved = sorted(
        ((p - before[name]).norm() / before[name].norm()).item()
        for name, p in model.named_parameters()
        if p.grad is not None and p.ndim > 1
    )
    assert found["update_size"] == pytest.approx(moved[(len(moved) - 1) // 2] / 10, rel=0.02)


def test_watching_changes_nothing_and_leaves_nothing_behind():
    weights = []
    for watch in (True, False):
        model = build()
        optimizer = lars(model)
        if watch:
            watched_step(model, optimizer)
        else:
            model(*views()).backward()
            optimizer.step()
        weights.append(model.state_dict())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_step_that_fails_leaves_nothing_behind_either():
    model = build()
    with pytest.raises(RuntimeError), observe(model):
        model(*(View(view.pixels[:, :1], view.box) for view in views()))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_with_accumulation_the_first_micro_batch_is_told():
    first, second = views(), [View(view.pixels.flip(0) * 2, torch.rand(2, 4)) for view in views()]
    model, other = build(), build()
    alone = watched_step(model, lars(model), first)
    both = watched_step(other, lars(other), first, second)
    for name in ("positives", "target_rank", "prediction_rank", "propagation_entropy"):
        assert both[name] == alone[name]
    assert both["grad_norm"] != alone["grad_norm"]


def test_of_a_pyramid_the_coarsest_level_is_told():
    torch.manual_seed(0)
    model = PixPro("resnet18", hidden_dim=16, dim=8, neck="fpn", levels=[4, 5])
    found = watched_step(model, lars(model))
    assert found["positives"] == positive_pairs(*OVERLAPPING, 2, 0.7).sum().item() / 2
    assert 1 <= found["target_rank"] <= 8 and 0 < found["propagation_entropy"] <= 1


def test_compiled_encoders_run_compiled_while_they_are_watched_and_are_not_compiled_again():
    model = build()
    compiled, ran = [], []

    def backend(graph, inputs):
        compiled.append(graph)
        return lambda *args: ran.append(graph) or graph.forward(*args)

    for encoder in (model.encoder, model.momentum_encoder):
        encoder.compile(backend=backend)
    model(*views())
    graphs, runs = len(compiled), len(ran)
    assert graphs > 0 and runs >= 4
    with observe(model) as seen:
        model(*views())
    model(*views())
    assert len(seen.targets) == len(seen.predictions) == 2 and seen.propagated
    assert len(compiled) == graphs and len(ran) == 3 * runs


def test_the_trainer_reports_every_nth_step_and_the_end_of_each_epoch():
    trainer = small_trainer(build())
    reported = [step.number for step in trainer.run(Pictures(batch=2, steps=5), 10, 3) if step.health is not None]
    assert reported == [3, 5, 6, 9, 10]


def test_a_run_without_propagation_and_momentum_is_seen_to_collapse():
    torch.manual_seed(0)
    rows = rows_of(small_trainer(shrink(Unpropagated("resnet18", hidden_dim=16, dim=64)), momentum=0.0), 40)
    assert rows[0]["target_rank"] > 3 and rows[-1]["target_rank"] < 1.2
    assert rows[-1]["target_std"] < 0.3 < rows[0]["target_std"] and rows[-1]["agreement"] > 0.9
