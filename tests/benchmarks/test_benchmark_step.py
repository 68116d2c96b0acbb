"""The benchmark of the step compares what it says: same work, same result, one row per contender."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import step
from benchmarks.measuring.memory import FREED_AT_ONCE, STATUS, in_new_process
from benchmarks.method import pair_memory
from benchmarks.steps import limits as step_limits
from benchmarks.steps import parts
from benchmarks.steps import rounds as step_rounds
from benchmarks.steps import turns as step_turns
from benchmarks.steps.contenders import CONTENDERS, make_case, official, ours
from benchmarks.steps.contenders.case import MOMENTUM
from pixpro.data.views import View
from tests.helpers.tiny_case import TINY, tiny_case

PEERS = {name: contender.build for name, contender in CONTENDERS.items() if contender.pip}


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad}


def check_that_a_step_trains(name):
    contestant = CONTENDERS[name].build(tiny_case())
    before = weights(contestant.model)
    assert torch.isfinite(contestant.run())
    assert any(not torch.equal(before[key], value) for key, value in weights(contestant.model).items())


@pytest.mark.parametrize("name", ["ours", "together", "official", "official_same", "official_float32"])
def test_a_step_of_a_contender_trains_it(name):
    check_that_a_step_trains(name)


@pytest.mark.parametrize("name", PEERS)
def test_a_step_of_an_installed_package_trains_it(name):
    pytest.importorskip("lightly" if "densecl" in name else "pixel_level_contrastive_learning")
    check_that_a_step_trains(name)


@pytest.mark.parametrize("name", ["floor", "floor_encoder"])
def test_the_floor_goes_back_through_the_network_and_leaves_it_as_it_is(name):
    contestant = CONTENDERS[name].build(tiny_case())
    before = weights(contestant.model)
    contestant.run()
    for key, parameter in contestant.model.named_parameters():
        assert parameter.grad is not None and torch.equal(before[key], parameter)


def equal_pair(case, dtype):
    """Ours and the re-stated official step with the same weights: both list their tensors in the same order."""
    pair = ours.build(case), official.build(case, None, torch.contiguous_format)
    first, second = (contestant.model.to(dtype) for contestant in pair)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in first.named_parameters():
            if name.endswith("weight") and parameter.ndim == 1:  # the last BatchNorm of a block starts at zero
                parameter.uniform_(0.5, 1.5, generator=generator)
        first.update_momentum(0.0)  # keys start equal: the official step moves them first
        for parameter, other in zip(first.parameters(), second.parameters(), strict=True):
            other.copy_(parameter)
    return pair


def test_the_restated_official_step_has_our_loss_in_float32():
    pair = equal_pair(tiny_case(), torch.float32)
    losses = [contestant.run().item() for contestant in pair]
    # Float32 and a scale from -4 to 4; the double-precision test beside this one is the exact one.
    assert abs(losses[0]) > 0.01 and losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_the_restated_official_step_ends_at_our_weights():
    case = tiny_case()
    double = [View(view.pixels.double(), view.box) for view in (case.view1, case.view2)]
    pair = equal_pair(type(case)(case.arch, case.hidden_dim, case.dim, *double, None), torch.float64)
    start = weights(pair[0].model)
    losses = [contestant.run().item() for contestant in pair]
    first, second = (contestant.model for contestant in pair)
    second.move_keys()  # it moves them before the forward pass, we after the step
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # the trainer tells its sum in float32
    for (name, parameter), other in zip(first.named_parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-8, atol=1e-10, msg=name)
        if name in start and parameter.ndim > 1:
            assert not torch.equal(parameter, start[name])
    moved = first.momentum_encoder.conv1.weight
    expected = MOMENTUM * start["encoder.conv1.weight"] + (1 - MOMENTUM) * first.encoder.conv1.weight
    torch.testing.assert_close(moved, expected)


def test_the_broadcast_version_computes_our_loss_and_gradient():
    torch.manual_seed(0)
    given = [each.double() for each in pair_memory.inputs(3, 4, 8, torch.device("cpu"))]
    found = []
    for version in pair_memory.VERSIONS.values():
        loss = version(*given)
        found.append([loss, *torch.autograd.grad(loss, [given[1], *given[0].parameters()])])
    assert abs(found[0][0]) > 1e-3 and found[0][1].abs().max() > 1e-4
    for ours_, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours_, theirs, rtol=1e-6, atol=1e-9)


def test_the_table_has_a_row_per_contender_also_for_those_that_cannot_run(tmp_path, capsys, monkeypatch):
    def missing(case):
        raise ImportError("no module of this name")

    def too_large(case):
        raise torch.OutOfMemoryError("too large")

    monkeypatch.setitem(CONTENDERS, "lucidrains", CONTENDERS["lucidrains"]._replace(build=missing))
    monkeypatch.setitem(CONTENDERS, "floor_encoder", CONTENDERS["floor_encoder"]._replace(build=too_large))

    def peak(function, name, settings, environment):
        assert function is step_rounds.peak_of_new and environment == FREED_AT_ONCE
        case = make_case(**settings)
        assert (case.arch, len(case.view1.box), case.view1.pixels.shape[-1]) == ("resnet18", 4, 64)
        assert (case.hidden_dim, case.dim, case.device.type) == (16, 8, "cpu")
        return 0.5

    monkeypatch.setattr(step_rounds, "in_new_process", peak)
    monkeypatch.setattr(step, "Apart", step_turns.Here)  # a process of its own would not see the changed contenders
    names = ["ours", "official_float32", "lucidrains", "floor", "floor_encoder"]
    arguments = [f"--{name}s={TINY[name]}" for name in ("batch_size", "image_size")] + ["--hidden_dim=16", "--dim=8"]
    arguments += ["--device=cpu", "--rounds=1", "--only", *names, "--json", str(tmp_path / "rows.json")]
    assert step.main(arguments) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]
    assert [line.split("|")[1].strip() for line in lines] == [CONTENDERS[name].title for name in names]
    assert "pip install pixel-level-contrastive-learning" in lines[2] and "out of memory" in lines[4]
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert rows[0]["time / ours"] == 1 and rows[3]["time / floor"] == 1 and rows[1]["peak GiB"] == 0.5
    assert {line.count("|") for line in lines} == {8}
    assert rows[0]["images/s"] * rows[0]["ms"] == pytest.approx(4 * 1e3)


def test_the_largest_batch_is_the_last_that_fits():
    def seconds_of(batch):
        if batch > 300:
            raise torch.OutOfMemoryError("too large")
        return batch / 100

    def nothing_fits(batch):
        raise torch.OutOfMemoryError("too large")

    assert step_limits.largest_batch(seconds_of) == (256, 2.56)
    assert step_limits.largest_batch(nothing_fits) is None


def test_the_profile_counts_the_products_of_three_passes_per_trained_network():
    lines = step_limits.profile_lines(tiny_case(), 1, peak_tflops=1.0)
    # resnet18 at 64 px: 0.148e9 multiplications and additions per image (torchvision's 1.814e9 at 224 px by area);
    # two views: forward, twice that backward but for the images' gradient, and a forward of the momentum copy.
    told = float(lines[0].split()[0])
    assert told == pytest.approx(4 * 2 * 4 * 2 * 0.148e9 / 1e12, rel=0.1)
    assert "%" in lines[0] and "convolution" in "\n".join(lines)


def test_each_part_of_a_step_gets_its_share(capsys):
    arguments = [f"--{name}={value}" for name, value in TINY.items()] + ["--device=cpu", "--arch=resnet18"]
    assert parts.main([*arguments, "--rounds=1"]) == 0
    lines = [line.split("|")[1:4] for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]
    assert lines[0][0].strip() == "whole step" and lines[0][2].strip() == "100.00%"
    told = " ".join(name for name, _, _ in lines)
    assert all(part in told for part in ("propagation", "pairs and loss", "momentum update", "LARS, one by one"))


@pytest.mark.skipif(not STATUS.exists(), reason="the system tells no peak of its own per process")
def test_the_peak_of_a_process_leaves_out_what_the_one_that_started_it_held():
    large = bytearray(400 * 2**20)
    large[:: 2**12] = b"x" * len(large[:: 2**12])
    root = Path(__file__).parents[2]
    code = "from benchmarks.measuring.memory import peak_gib; print(peak_gib())"
    told = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert 0 < float(told.stdout) < len(large) / 2**30


def test_a_new_process_gives_what_it_computes_and_nothing_where_it_ends_or_runs_out_of_memory():
    assert in_new_process(os.getenv, "WHERE", environment={"WHERE": "there"}) == "there" and "WHERE" not in os.environ
    assert in_new_process(os._exit, 9) is None
    assert in_new_process(torch.empty, 2**60) is None
