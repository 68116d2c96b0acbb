"""Reading the golden records of the official code (tests/golden/README.md) and comparing with them."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pixpro.checkpoints.convert import to_pixpro
from tests.golden import recipe

FOLDER = Path(__file__).parents[1] / "golden"


def load(name: str) -> tuple[dict, dict]:
    """The JSON table of a record file and its arrays."""
    return json.loads((FOLDER / f"{name}.json").read_text()), dict(np.load(FOLDER / f"{name}.npz"))


def official_names(model: nn.Module, candidates: list[str]) -> dict[str, str]:
    """Official name of each of the model's tensors, found through the public `to_pixpro`."""
    # All at once, each tensor holding its number: who wrote a checkpoint shows only in all of its names.
    ours = to_pixpro({name: torch.full((1,), number) for number, name in enumerate(candidates)})
    return {name: candidates[int(number)] for name, number in ours.items() if name in model.state_dict()}


def fill(model: nn.Module, candidates: list[str]) -> dict[str, str]:
    """Load the recipe's weights into a model in float64; returns {our name: official name}."""
    names = official_names(model, candidates)
    state = model.state_dict()
    assert set(names) == set(state), set(names) ^ set(state)
    model.double().load_state_dict(
        {ours: torch.from_numpy(recipe.weight(name, tuple(state[ours].shape))) for ours, name in names.items()}
    )
    return names


def assert_row(name: str, tensor: torch.Tensor, row: list[float], limit: float = 1e-11) -> None:
    """The tensor's L2 norm, sum and random projection equal a record's row, relative to max(|value|, l2)."""
    array = tensor.detach().double().numpy()
    l2, total, dot = row[:3]
    if l2 < 1e-9:  # zero in theory, such as the gradient of a bias before BatchNorm; rounding in practice
        assert np.abs(array).max() < 1e-9, name
        return
    assert abs(np.sqrt((array * array).sum()) - l2) <= limit * l2, name
    for value, expected in ((array.sum(), total), (recipe.probe(name, array), dot)):
        assert abs(value - expected) <= limit * max(abs(expected), l2), (name, value, expected)
