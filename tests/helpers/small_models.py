"""Random models on a resnet18: ours with heads as wide as those of other projects' models, and any saved to a file."""

import torch
from torch import nn

import pixpro
from tests.helpers import foreign_models as foreign
from tests.helpers.foreign_models import randomised, wrapped


def saved(path, make, key="model", **beside):
    """A file with a random float32 model under a key; returns its path and the model."""
    model = randomised(make).float()
    torch.save({key: wrapped(model.state_dict()), **beside}, path)
    return str(path), model


def small_model(method=pixpro.PixPro, **options) -> nn.Module:
    """A random float32 model of ours, into whose heads the foreign weights fit."""
    return randomised(lambda: method("resnet18", hidden_dim=foreign.HIDDEN, dim=foreign.DIM, **options)).float()
