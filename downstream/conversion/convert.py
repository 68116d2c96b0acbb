"""State dict under our names -> the online encoder's trunk (and pyramid) under detectron2's names."""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import FeaturePyramidNetwork

from downstream.conversion.names import SHAPES, pyramid_name, trunk_name
from downstream.conversion.weights_file import RGB
from pixpro.checkpoints.trunk import check_trunk, trunk_of
from pixpro.errors import UserError

NECK = "encoder.neck."


class Conversion(NamedTuple):
    """A checkpoint's trunk and neck: as detectron2 names them, and as torchvision does."""

    weights: dict[str, np.ndarray]
    trunk: dict[str, Tensor]
    neck: dict[str, Tensor]  # the whole pyramid, of which the untrained blocks have no weights; empty without one
    left_out: Counter[str]  # what is neither: module -> number of tensors


def convert(state_dict: dict[str, Tensor], arch: str) -> Conversion:
    """The trunk and trained neck of the online encoder; every other key is counted in `left_out`.

    Raises UserError if one of them is incomplete, has foreign tensors or shapes, or is not finite.
    """
    if arch not in SHAPES:
        raise UserError(
            f"detectron2's ResNet cannot hold a {arch} ({', '.join(SHAPES)} it can); "
            "detect.py and segment.py fine-tune other backbones"
        )
    trunk = trunk_of(state_dict)
    check_trunk(trunk, arch)
    neck = {key.removeprefix(NECK): tensor for key, tensor in state_dict.items() if key.startswith(NECK)}
    if neck:
        check_pyramid(neck, arch)
    weights = {trunk_name(key): as_array(tensor) for key, tensor in trunk.items()}
    pyramid = trained_blocks(neck)
    weights |= {pyramid_name(key): as_array(tensor) for key, tensor in pyramid.items()}
    used = {f"encoder.{key}" for key in trunk} | {f"{NECK}{key}" for key in pyramid}
    return Conversion(dict(sorted(weights.items())), trunk, neck, Counter(map(module_of, state_dict.keys() - used)))


def module_of(key: str) -> str:
    """The part of a model that a key belongs to: `encoder.projector`, `momentum_encoder`, `propagation`, ..."""
    parts = key.split(".")
    return ".".join(parts[: 2 if parts[0] == "encoder" else 1])


def as_array(tensor: Tensor) -> np.ndarray:
    """The tensor as float32 (counters stay integers), on its own memory."""
    tensor = tensor.detach().cpu()
    return np.array((tensor.float() if tensor.is_floating_point() else tensor).numpy())


def trained_blocks(neck: dict[str, Tensor]) -> dict[str, Tensor]:
    """The neck without blocks whose BatchNorm has counted no batch: pre-training left those as initialised."""
    counters = {key: count for key, count in neck.items() if key.endswith(".num_batches_tracked")}
    idle = {key.removesuffix("1.num_batches_tracked") for key, count in counters.items() if count == 0}
    return {key: tensor for key, tensor in neck.items() if not key.startswith(tuple(idle))}


def build_pyramid(arch: str, neck: dict[str, Tensor]) -> FeaturePyramidNetwork:
    """An untrained pyramid over the arch's C2 to C5 with the neck's width, and norms if the neck has them."""
    norm = torch.nn.BatchNorm2d if any(key.endswith("running_mean") for key in neck) else None
    first = SHAPES[arch].res2_out_channels
    return FeaturePyramidNetwork([first << level for level in range(4)], neck_channels(neck), norm_layer=norm)


def neck_channels(neck: dict[str, Tensor]) -> int:
    """Channels of every pyramid level; 0 without a neck."""
    kernel = neck.get("inner_blocks.3.0.weight")  # the one that every level needs
    return 0 if kernel is None else kernel.shape[0]


def check_pyramid(neck: dict[str, Tensor], arch: str) -> None:
    """Raise UserError unless the neck is a whole, finite pyramid over the arch's C2 to C5."""
    if not neck_channels(neck):
        raise UserError("not a whole feature pyramid: its convolution on C5, inner_blocks.3.0.weight, is missing")
    with torch.device("meta"):
        expected = {key: tensor.shape for key, tensor in build_pyramid(arch, neck).state_dict().items()}
    wrong = [key for key in expected | neck if key not in neck or expected.get(key) != neck[key].shape]
    wrong = [key for key in wrong if not key.endswith("num_batches_tracked")]
    wrong = wrong or [key for key, tensor in neck.items() if not torch.isfinite(tensor).all()]
    if wrong:
        raise UserError(
            f"not a whole feature pyramid over a {arch}: {len(wrong)} of {len(expected)} tensors are missing, "
            f"foreign, of another shape or not finite, first {wrong[0]}"
        )


def described(conversion: Conversion, arch: str) -> dict[str, Any]:
    """The facts that travel with the weights: what they are, and how they see images."""
    return {"arch": arch, **RGB, "fpn_channels": neck_channels(trained_blocks(conversion.neck))}
