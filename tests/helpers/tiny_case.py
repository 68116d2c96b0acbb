"""The smallest case of the step benchmark."""

import torch

from benchmarks.steps.contenders import Case, make_case

TINY = {"batch_size": 4, "image_size": 64, "hidden_dim": 16, "dim": 8}


def tiny_case() -> Case:
    """ResNet-18 on four pairs of views of 64 px, in float32 on the CPU."""
    return make_case("resnet18", **TINY, device=torch.device("cpu"), amp_dtype=None)
