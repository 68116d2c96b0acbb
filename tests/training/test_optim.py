"""LARS and its groups equal the official ones and plain formulas."""

import numpy as np
import pytest
import torch
from torch import nn

from pixpro.training.optim import LARS, make_optimizer, parameter_groups
from tests.golden import recipe
from tests.helpers.golden_records import FOLDER

TOY = np.load(FOLDER / "case4_lars_toy.npz")
DECAYS = sorted({key.split("/")[0].removeprefix("wd") for key in TOY.files}, key=float)


def toy_parameters(decay: str) -> dict[str, nn.Parameter]:
    names = [key.split("/")[1] for key in TOY.files if key.startswith(f"wd{decay}/") and not key.endswith("_f32")]
    values = {name: recipe.weight(name, TOY[f"wd{decay}/{name}"].shape[1:]) for name in names}
    values["zero.weight"][:] = 0
    return {name: nn.Parameter(torch.from_numpy(value).double()) for name, value in values.items()}


@pytest.mark.parametrize("decay", DECAYS)
def test_five_steps_equal_the_official_lars(decay):
    parameters = toy_parameters(decay)
    holder = nn.Module()
    for name, parameter in parameters.items():
        holder.register_parameter(name.replace(".", "_"), parameter)
    optimizer = LARS(parameter_groups(holder, float(decay)), lr=1.0, momentum=0.9)
    for step in range(5):
        for group in optimizer.param_groups:
            group["lr"] = 4 / (step + 1)
        for name, parameter in parameters.items():
            gradient = recipe.normal(f"toy_grad/{name}/step{step}", tuple(parameter.shape))
            parameter.grad = torch.from_numpy(gradient * (name != "still.weight")).double()
        optimizer.step()
        for name, parameter in parameters.items():
            np.testing.assert_allclose(parameter.detach(), TOY[f"wd{decay}/{name}"][step], rtol=1e-12, atol=1e-12)


def test_batchnorm_and_biases_are_neither_decayed_nor_adapted():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4), nn.Linear(4, 2))
    model[2].weight.requires_grad_(False)
    decayed, plain = parameter_groups(model, 0.5)
    assert decayed["params"] == [model[0].weight]
    assert plain["params"] == [model[0].bias, model[1].weight, model[1].bias, model[2].bias]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0.0)
    assert (decayed["adapt"], plain["adapt"]) == (True, False)


def test_the_ratio_sees_the_decayed_gradient():
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]], dtype=torch.float64))
    weight.grad = torch.tensor([[-3.0, 0.0]], dtype=torch.float64)
    LARS([weight], lr=1.0, momentum=0.9, weight_decay=1.0, trust_coefficient=0.5, eps=0.0).step()
    # Decayed gradient (0, 4), norm 4; |w| = 5: scale 0.5 * 5 / 4. (|g| + wd |w| would give 0.5 * 5 / 8.)
    torch.testing.assert_close(weight.detach(), torch.tensor([[3.0, 4.0 - 0.625 * 4]], dtype=torch.float64))


def test_gradients_stay_as_backward_left_them():
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.full((2, 2), 2.0)
    LARS([weight], lr=0.1, weight_decay=0.1).step()
    assert torch.equal(weight.grad, torch.full((2, 2), 2.0))


def test_a_resumed_optimizer_goes_on_where_it_was():
    def run(split: bool) -> torch.Tensor:
        weight = nn.Parameter(torch.arange(6.0).view(2, 3))
        optimizer = LARS([weight], lr=0.5, weight_decay=0.01)
        for step in range(4):
            if split and step == 2:
                state = optimizer.state_dict()
                optimizer = LARS([weight], lr=99.0)
                optimizer.load_state_dict(state)
            weight.grad = torch.sin(torch.arange(6.0) + step).view(2, 3)
            optimizer.step()
        return weight.detach()

    assert torch.equal(run(split=False), run(split=True))


def test_adamw_follows_its_published_steps_and_decays_matrices_alone():
    model = nn.Linear(2, 1).double()
    optimizer = make_optimizer("adamw", model, lr=0.1, momentum=0.8, weight_decay=0.5)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    first = [torch.zeros_like(weight), torch.zeros_like(bias)]
    second = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for step in range(1, 4):
        gradients = [torch.tensor([[1.0, -2.0]]).double() * step, torch.tensor([3.0]).double()]
        model.weight.grad, model.bias.grad = (gradient.clone() for gradient in gradients)
        optimizer.step()
        for index, (value, decay) in enumerate(((weight, 0.5), (bias, 0.0))):
            first[index] = 0.8 * first[index] + 0.2 * gradients[index]
            second[index] = 0.999 * second[index] + 0.001 * gradients[index] ** 2
            corrected = second[index] / (1 - 0.999**step)
            value -= 0.1 * (decay * value + first[index] / (1 - 0.8**step) / (corrected.sqrt() + 1e-8))
        torch.testing.assert_close(model.weight.detach(), weight)
        torch.testing.assert_close(model.bias.detach(), bias)
