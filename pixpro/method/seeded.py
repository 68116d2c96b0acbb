"""Settings and a seed -> the model that a run begins with, always the same one."""

from typing import Any

import torch

from pixpro.method.model import DensePretraining, PixContrast, PixPro

# What the weights at the beginning depend on, as settings are named.
MODEL_SETTINGS = (
    *("seed", "loss", "arch", "neck", "levels", "hidden_dim", "dim", "num_linear", "sharpness", "threshold"),
    *("temperature", "instance_weight", "instance_loss", "instance_temperature"),
)


def seeded_model(
    *, seed: int, loss: str, num_linear: int, sharpness: float, temperature: float, **common: Any
) -> DensePretraining:
    """The method on its backbone, with weights from the seed; torch's generator goes on from there.

    loss: pixpro or pixcontrast. common: as both take them.
    """
    torch.manual_seed(seed)
    if loss == "pixcontrast":
        return PixContrast(temperature=temperature, **common)
    return PixPro(num_layers=num_linear, sharpness=sharpness, **common)
