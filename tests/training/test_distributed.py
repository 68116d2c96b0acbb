"""Two processes that share a batch give the losses, gradients and statistics of one process with all of it."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pixpro import PixContrast, PixPro
from pixpro.data.views import View
from pixpro.training import distributed
from pixpro.training.sync_batchnorm import BatchNorm

OVERLAP = torch.tensor([[0.0, 0.0, 0.9, 0.9], [0.8, 0.2, 0.1, 1.0]]), torch.tensor([[0.1, 0.1, 1.0, 1.0]] * 2)
APART = torch.tensor([[0.0, 0.0, 0.3, 0.3]] * 2), torch.tensor([[0.6, 0.6, 1.0, 1.0]] * 2)
CASES = {
    "pixpro": (lambda: PixPro("resnet18", hidden_dim=16, dim=8, num_layers=2), (OVERLAP, OVERLAP)),
    "pixpro, second rank without pairs": (lambda: PixPro("resnet18", hidden_dim=16, dim=8), (OVERLAP, APART)),
    "pixcontrast": (lambda: PixContrast("resnet18", hidden_dim=16, dim=8), (OVERLAP, OVERLAP)),
    "pixcontrast, first rank without pairs": (lambda: PixContrast("resnet18", hidden_dim=16, dim=8), (APART, OVERLAP)),
    "instance branch": (lambda: PixPro("resnet18", hidden_dim=16, dim=8, instance_weight=1.0), (OVERLAP, OVERLAP)),
}

if find_spec("timm"):  # most of its BatchNorms end in an activation
    CASES["a backbone of timm"] = (lambda: PixPro("timm/regnetx_002", hidden_dim=16, dim=8), (OVERLAP, APART))


def step(case: str, rank: int, world_size: int) -> dict[str, torch.Tensor]:
    """Loss, gradients and buffers of one step on this rank's share of four images."""
    build, halves = CASES[case]
    torch.manual_seed(0)
    model = build().double()
    images = torch.randn(2, 4, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    boxes = [torch.cat([half[view] for half in halves]) for view in (0, 1)]
    share = slice(rank * 4 // world_size, (rank + 1) * 4 // world_size)
    view1, view2 = (View(images[view, share], boxes[view][share]) for view in (0, 1))
    core = BatchNorm.convert(model, world_size)
    wrapped = DistributedDataParallel(core, broadcast_buffers=False) if world_size > 1 else core
    loss = wrapped(view1, view2)
    loss.backward()
    mean = distributed.mean_numbers({"loss": loss.detach()}, loss.device)["loss"]
    found = {"loss": torch.tensor(mean, dtype=torch.float64)}
    found |= {f"grad {name}": p.grad for name, p in core.named_parameters() if p.grad is not None}
    return found | {f"buffer {name}": buffer.clone() for name, buffer in core.named_buffers()}


def normalise(norm: nn.Module, rank: int, world_size: int) -> dict[str, torch.Tensor]:
    """Output, gradients and statistics of a BatchNorm for this rank's share of six bf16 maps, far from mean 0."""
    generator = torch.Generator().manual_seed(2)
    maps, weights = (torch.randn(6, 5, 3, 3, generator=generator) for _ in range(2))
    share = slice(rank * 6 // world_size, (rank + 1) * 6 // world_size)
    features = (3 * maps + 4)[share].bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    out = norm(features)
    (out.float() * weights[share]).sum().backward()
    found = {"out": out.detach(), "features": features.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    return found | {"mean": norm.running_mean, "variance": norm.running_var}


def all_cases(folder: str) -> int:
    """What each of the launched processes does."""
    process = distributed.join()
    torch.set_num_threads(1)
    results = {case: step(case, process.rank, process.world_size) for case in CASES}
    numbers = {"loss": torch.tensor(2.0 * process.rank), "wait": float(process.rank), "rank": 3.0}
    norm = BatchNorm.convert(nn.Sequential(nn.BatchNorm2d(5)), process.world_size)[0]
    results["bf16"] = normalise(norm, process.rank, process.world_size)
    results["means"] = distributed.mean_numbers(numbers, process.device)
    results["largest"] = distributed.mean_numbers(numbers, process.device, largest=("wait",))
    results["agree"] = [distributed.all_agree(answer, process.device) for answer in (True, process.is_main, False)]
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    nn.init.constant_(model.weight, process.rank + 1.0)
    distributed.copy_from_main(model)
    results["copied"] = model.state_dict()
    torch.save(results, Path(folder, f"{process.rank}.pt"))
    distributed.leave()
    return 0


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    assert distributed.launch(all_cases, 2, str(folder)) == 0
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_equal_one_process(two_ranks, case):
    alone = step(case, 0, 1)
    assert alone["loss"] != 0
    for rank in two_ranks:
        assert rank[case].keys() == alone.keys()
        for name, expected in alone.items():
            torch.testing.assert_close(
                rank[case][name], expected, rtol=1e-5, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_half_precision_features_are_normalised_with_float32_statistics(two_ranks):
    alone = normalise(nn.BatchNorm2d(5), 0, 1)
    found = [rank["bf16"] for rank in two_ranks]
    for name in ("out", "features"):
        both = torch.cat([each[name] for each in found])
        assert both.dtype == torch.bfloat16
        torch.testing.assert_close(both, alone[name], rtol=0.02, atol=0.02)
    for name in ("weight", "bias"):  # torch rounds the bias's gradient to bf16
        torch.testing.assert_close(found[0][name] + found[1][name], alone[name], rtol=0.01, atol=0.05)
    for name in ("mean", "variance"):
        torch.testing.assert_close(found[0][name], alone[name])
        assert torch.equal(found[0][name], found[1][name])


def test_numbers_are_averaged_over_the_ranks_by_name(two_ranks):
    assert two_ranks[0]["means"] == two_ranks[1]["means"] == {"loss": 1.0, "wait": 0.5, "rank": 3.0}


def test_conversion_keeps_names_weights_and_statistics():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=1e-3, momentum=0.2), nn.BatchNorm1d(2))
    model[1].running_mean.fill_(3.0)
    weight, state = model[1].weight, {name: value.clone() for name, value in model.state_dict().items()}
    converted = BatchNorm.convert(model)
    assert type(converted[1]) is BatchNorm and type(converted[2]) is nn.BatchNorm1d
    assert converted[1].weight is weight and (converted[1].eps, converted[1].momentum) == (1e-3, 0.2)
    assert converted.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in converted.state_dict().items())


def test_conversion_keeps_what_a_batchnorm_of_timm_ends_in():
    layers = pytest.importorskip("timm.layers")
    model = nn.Sequential(nn.Conv2d(3, 4, 1), layers.BatchNormAct2d(4, act_layer=nn.LeakyReLU), nn.BatchNorm2d(4))
    images, state = torch.randn(2, 3, 5, 5), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = model(images)
    model.load_state_dict(state)
    converted = BatchNorm.convert(model)
    assert [type(part) for part in converted[1:]] == [BatchNorm, BatchNorm]
    assert converted.state_dict().keys() == state.keys()
    assert expected.min() < 0 and torch.equal(converted(images), expected)


def fail_in_second_rank() -> int:
    return 7 if distributed.join().rank == 1 else 0


def test_the_exit_code_of_a_failing_process_comes_back():
    assert distributed.launch(fail_in_second_rank, 2) == 7


def test_of_numbers_that_hide_in_a_mean_the_largest_is_told(two_ranks):
    for found in two_ranks:
        assert found["largest"] == {"loss": 1.0, "wait": 1.0, "rank": 3.0}
        assert found["means"]["wait"] == 0.5


def test_all_agree_only_when_each_process_says_yes(two_ranks):
    assert [found["agree"] for found in two_ranks] == [[True, False, False]] * 2


def test_a_model_copied_from_the_main_process_is_its_model(two_ranks):
    for name, tensor in two_ranks[0]["copied"].items():
        assert torch.equal(tensor, two_ranks[1]["copied"][name])
    assert (two_ranks[1]["copied"]["weight"] == 1).all()
