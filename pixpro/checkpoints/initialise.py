"""--init: weights from anywhere -> a model's first weights, and the one line that says what became of them."""

import torch
import torchvision
from torch import Tensor, nn

from pixpro.checkpoints.convert import read_checkpoint, to_pixpro
from pixpro.checkpoints.trunk import COUNTER, arch_of, trunk_of
from pixpro.errors import UserError

PARTS = {
    "encoder.neck.": "neck",
    "encoder.projector.": "projector",
    "encoder.instance_projector.": "instance projector",
    "encoder.": "backbone",
    "propagation.": "propagation",
    "instance.": "instance head",
}


def initialise(model: nn.Module, source: str) -> str:
    """Start a PixPro or PixContrast from a checkpoint of any known project; returns what was used, left, missing.

    source: a path, or "imagenet" for torchvision's supervised weights. Each part (backbone, projector, ...) is taken
    whole or not at all; the backbone must fit. A momentum part that the file lacks starts as its online twin.
    """
    own = model.state_dict()
    arch = arch_of(trunk_of(own))
    if source == "imagenet":
        given, left, origin = to_pixpro(imagenet(arch)), ["fc"], "torchvision's supervised ImageNet weights"
    else:
        checkpoint = read_checkpoint(source)
        if checkpoint.arch != arch:
            raise UserError(f"--init {source}: holds a {checkpoint.arch}, the model is a {arch}; use --arch")
        given, left = checkpoint.state_dict, summary(checkpoint.left)
        epoch = "" if checkpoint.epoch is None else f", epoch {checkpoint.epoch}"
        origin = f"{source} ({checkpoint.writer}, {arch}{epoch})"
    used = copy_parts(own, given)
    missing = [part for part in parts(own) if part not in used]
    copy_to_momentum(own, [part for part in missing if part.startswith("momentum ")])
    left = [part for part in parts(given) if part not in used] + left
    return (
        f"init from {origin}: used {', '.join(used)}; left in the file: {', '.join(left) or 'nothing'}; "
        f"missing: {', '.join(without_twins(missing)) or 'nothing'}"
    )


def copy_parts(own: dict[str, Tensor], given: dict[str, Tensor]) -> list[str]:
    """Copy every part that fits as a whole into the model's tensors, in place; returns those parts' names."""
    used = []
    for part, names in parts(own).items():
        needed = [name for name in names if not name.endswith(COUNTER)]
        if all(name in given and given[name].shape == own[name].shape for name in needed):
            for name in names:
                if name in given:
                    own[name].copy_(given[name])
            used.append(part)
    return used


def copy_to_momentum(own: dict[str, Tensor], missing: list[str]) -> None:
    """Start these parts of the momentum encoder as copies of the online encoder's."""
    for name, tensor in own.items():
        if part_of(name) in missing:
            tensor.copy_(own[name.removeprefix("momentum_")])


def part_of(name: str) -> str:
    """Which part of the model a tensor belongs to, in words."""
    momentum = "momentum " if name.startswith("momentum_") else ""
    name = name.removeprefix("momentum_")
    return momentum + next(part for start, part in PARTS.items() if name.startswith(start))


def parts(names: dict[str, Tensor]) -> dict[str, list[str]]:
    """Parts in words -> the names of their tensors."""
    grouped: dict[str, list[str]] = {}
    for name in names:
        grouped.setdefault(part_of(name), []).append(name)
    return grouped


def without_twins(missing: list[str]) -> list[str]:
    """Missing parts, with a momentum part named only where its online twin was found."""
    online = [f"{part} (fresh)" for part in missing if not part.startswith("momentum ")]
    copied = [part for part in missing if part.startswith("momentum ") and part[9:] not in missing]
    return online + [f"{part} (copied from the online one)" for part in copied]


def summary(names: tuple[str, ...]) -> list[str]:
    """Tensors that have no place here, by the first words of their names."""
    return list(dict.fromkeys(".".join(name.split(".")[:-1][:2]) or name for name in names))


def imagenet(arch: str) -> dict[str, Tensor]:
    """torchvision's first supervised ImageNet weights of a model, from its cache or the network."""
    weights = torchvision.models.get_model_weights(arch).IMAGENET1K_V1
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"--init imagenet: torchvision's weights of {arch} are not here and could not be fetched ({error}); "
            f"put {weights.url.rsplit('/', 1)[1]} into {torch.hub.get_dir()}/checkpoints, or use --init PATH"
        ) from None
