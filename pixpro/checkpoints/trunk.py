"""Trunk tensors under torchvision's or timm's names -> which backbone they are, checked, and the model with them."""

from functools import cache

import torch
from torch import Tensor, nn

from pixpro.errors import UserError
from pixpro.method.timm_models import is_timm
from pixpro.method.trunks import ARCHS, TRUNK, new_backbone, sketch, trunk_tensors

TIMM_TRUNK = "trunk."  # below it an encoder keeps a backbone of timm under timm's names
COUNTER = "num_batches_tracked"  # absent from old files, and nothing depends on it


def trunk_of(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The trunk's tensors of a state dict under our names, named as in torchvision or timm."""
    below = f"encoder.{TIMM_TRUNK}"
    if any(name.startswith(below) for name in state_dict):
        return {name.removeprefix(below): tensor for name, tensor in state_dict.items() if name.startswith(below)}
    parts = tuple(f"encoder.{part}." for part in TRUNK)
    return {name.removeprefix("encoder."): tensor for name, tensor in state_dict.items() if name.startswith(parts)}


@cache
def trunk_shapes(arch: str) -> dict[str, torch.Size]:
    """Names and shapes of a backbone's trunk, without BatchNorm's counters; UserError for one that timm has not."""
    try:
        shapes = trunk_tensors(arch)
    except ValueError as error:
        raise UserError(str(error)) from None
    return {name: shape for name, shape in shapes.items() if not name.endswith(COUNTER)}


def arch_of(trunk: dict[str, Tensor], said: str | None = None) -> str:
    """Name of the backbone that a trunk belongs to; UserError unless it is whole.

    From names and shapes for torchvision's. said: what the file calls it, or the reader; decides for timm's alone.
    """
    if not trunk:
        raise UserError("no backbone in it: none of its tensors is named like a ResNet's (conv1, layer1, ...)")
    if said is not None and is_timm(said):
        check_trunk(trunk, said)
        return said
    shapes = {name: tensor.shape for name, tensor in trunk.items() if not name.endswith(COUNTER)}
    whole = next((arch for arch in ARCHS if trunk_shapes(arch) == shapes), None)
    # Nothing fits: the closest one explains best. Where a smaller network fits as well, it is the closer one.
    arch = whole or max(
        ARCHS, key=lambda arch: (len(shapes.items() & trunk_shapes(arch).items()), -len(trunk_shapes(arch)))
    )
    check_trunk(trunk, arch)
    return arch


def check_trunk(trunk: dict[str, Tensor], arch: str) -> None:
    """Raise UserError unless names and shapes are exactly those of the arch's trunk."""
    expected = trunk_shapes(arch)
    missing = [name for name in expected if name not in trunk]
    extra = [name for name in trunk if name not in expected and not name.endswith(COUNTER)]
    wrong = [name for name, shape in expected.items() if name in trunk and trunk[name].shape != shape]
    for what, names in (("missing", missing), ("of another shape", wrong), ("too many", extra)):
        if names:
            raise UserError(f"not a whole {arch}: {len(names)} of {len(expected)} tensors {what}, first {names[0]}")


def check_finite(trunk: dict[str, Tensor]) -> None:
    """Raise UserError if a tensor of the trunk holds NaN or an infinite value."""
    broken = [name for name, tensor in trunk.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise UserError(f"NaN or infinite values in {len(broken)} tensors of the backbone, first {broken[0]}")


def backbone(trunk: dict[str, Tensor], arch: str) -> nn.Module:
    """The library's model of this name with the given trunk and no classifier."""
    if is_timm(arch):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = new_backbone(arch)
        model.load_state_dict(trunk, strict=False)  # its names and shapes were checked
        return model
    model = sketch(arch)  # without drawing initial weights that would be overwritten
    counters = {name: torch.zeros((), dtype=torch.long) for name in model.state_dict() if name.endswith(COUNTER)}
    model.to_empty(device="cpu").load_state_dict(counters | trunk)
    return model
