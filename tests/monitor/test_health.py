"""The numbers of a step equal plain formulas, and looking at a step changes nothing about it."""

import pytest
import torch
from torch import nn

from pixpro import PixContrast, PixPro
from pixpro.data.views import View
from pixpro.method.geometry import positive_pairs
from pixpro.monitor.health import evenness, health, observe, spread, within_images
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
