"""The state of a training of a few numbers, as its checkpoints hold it."""

import torch


def state(step: int = 0) -> dict:
    """Weights that differ from step to step, and all else that a training state has."""
    weights = {"a.weight": torch.arange(6.0).view(2, 3) + step, "a.bias": torch.ones(3, dtype=torch.bfloat16)}
    return {
        "model": weights,
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "scaler": {},
        "step": step,
        "config": {"loss": "pixpro", "levels": [3, 4], "init": "", "none": None},
    }
