"""What a run begins with: weights from its seed, then --init: weights from anywhere, and what became of them."""

from typing import Any

import torch
import torchvision
from torch import Tensor

from pixpro.checkpoints.convert import convert_timm, read_checkpoint, to_pixpro
from pixpro.checkpoints.trunk import COUNTER
from pixpro.errors import UserError
from pixpro.method.model import DensePretraining, PixContrast, PixPro
from pixpro.method.timm_models import is_timm, timm_model

# What the weights at the beginning depend on, as settings are named.
MODEL_SETTINGS = (
    *("seed", "loss", "arch", "neck", "levels", "hidden_dim", "dim", "num_linear", "sharpness", "threshold"),
    *("temperature", "instance_weight", "instance_loss", "instance_temperature"),
)
PARTS = {
    "encoder.neck.": "neck",
    "encoder.projector.": "projector",
    "encoder.instance_projector.": "instance projector",
    "encoder.": "backbone",
    "propagation.": "propagation",
    "instance.": "instance head",
}


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


def initialise(model: DensePretraining, source: str) -> str:
    """Start a PixPro or PixContrast from a checkpoint of any known project; returns what was used, left, missing.

    source: a path, "imagenet" for torchvision's supervised weights, or "timm" for timm's pre-trained ones. Each part
    (backbone, projector, ...) is taken whole or not at all; the backbone must fit. A momentum part that the file lacks
    starts as its online twin.
    """
    own = model.state_dict()
    arch = model.encoder.arch
    if source == "timm" or (source == "imagenet" and is_timm(arch)):
        given, left, origin = timm_weights(arch, source)
    elif source == "imagenet":
        given, left, origin = to_pixpro(imagenet(arch)), ["fc"], "torchvision's supervised ImageNet weights"
    else:
        checkpoint = read_checkpoint(source, arch)
        if checkpoint.arch != arch:
            raise UserError(f"--init {source}: holds a {checkpoint.arch}, the model is a {arch}; use --arch")
        given, left = checkpoint.state_dict, summary(checkpoint.left)
        epoch = "" if checkpoint.epoch is None else f", epoch {checkpoint.epoch}"
        origin = f"{source} ({checkpoint.writer}, {arch}{epoch})"
    used = copy_parts(own, given)
    missing = [part for part in parts(own) if part not in used]
    for name, tensor in own.items():
        if name.startswith("momentum_") and part_of(name) in missing:
            tensor.copy_(own[name.removeprefix("momentum_")])
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


def timm_weights(arch: str, source: str) -> tuple[dict[str, Tensor], list[str], str]:
    """timm's pre-trained weights of a trunk under our names, what is left of them, and where they are from.

    From the hub or its cache; `timm/NAME.TAG` chooses one of several.
    """
    if not is_timm(arch):
        raise UserError(f"--init timm is for --arch timm/NAME, this is a {arch}; use --init imagenet")
    if source != "timm":
        raise UserError(f"--init {source} has weights of torchvision, this is a {arch}; use --init timm")
    try:
        weights = timm_model(arch, pretrained=True).state_dict()
    except Exception as error:  # timm's own, the hub's, and those of its network libraries
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"--init timm: weights of {arch} are not here and could not be fetched ({reason}); "
            "fetch its model.safetensors elsewhere and use --init FILE"
        ) from None
    conversion = convert_timm(weights, arch)
    return conversion.state_dict, summary(conversion.left), f"timm's pre-trained weights of {arch}"


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
