"""Checkpoints of any known project -> state dicts under our names, with an account of what was used and left."""

import argparse
import os
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pixpro.checkpoints.layouts import layout_of, rename, without_wrappers
from pixpro.checkpoints.model_folder import folder_of, read_folder
from pixpro.checkpoints.safe_load import load_untrusted, one_line
from pixpro.checkpoints.trunk import TIMM_TRUNK, arch_of, backbone, check_finite, trunk_of, trunk_shapes
from pixpro.errors import UserError
from pixpro.method.timm_models import MAPS, is_timm
from pixpro.method.trunks import trunk_tensors


class Conversion(NamedTuple):
    """A state dict under our names, and what became of the original's tensors."""

    state_dict: dict[str, Tensor]
    writer: str  # whose key names they were
    method: str
    left: tuple[str, ...]  # names in the original that have no place here
    added: tuple[str, ...]  # our names that stand for something the original does without


class Checkpoint(NamedTuple):
    """A checkpoint of any known project, under our names; its backbone is whole and finite."""

    state_dict: dict[str, Tensor]
    arch: str  # torchvision's name, from the tensors' shapes, or timm/NAME
    writer: str
    method: str  # "pixpro", "pixcontrast", "moco", ...; "unknown" where the file does not say
    epoch: int | None  # epochs trained
    config: dict[str, Any]  # settings of the run, plain values only
    left: tuple[str, ...]

    def trunk(self) -> dict[str, Tensor]:
        """The online encoder's trunk under the names of torchvision or timm."""
        return trunk_of(self.state_dict)

    @property
    def trained_up_to(self) -> str:
        """The last of the backbone's maps c2 to c5 that was trained: c5, or what a run on one of its stages saw."""
        said, levels = self.config.get("trained_up_to"), self.config.get("levels")
        if self.config.get("neck") == "stage" and isinstance(levels, list) and levels:
            said = f"c{levels[0]}"
        return said if said in MAPS else MAPS[-1]


def convert(state_dict: dict[str, Tensor]) -> Conversion:
    """The same tensors under our names, whoever wrote them; dtypes and values are untouched.

    Raises UserError when no tensor has a known name, or two would get the same one.
    """
    stripped: dict[str, Tensor] = {}
    for name, value in state_dict.items():
        if isinstance(name, str) and isinstance(value, Tensor):
            short = without_wrappers(name)
            if short in stripped:
                raise UserError(f"two tensors are both {short}, with and without a wrapper's prefix")
            stripped[short] = value
    layout = layout_of(list(stripped))
    if layout is None:
        some = ", ".join(list(stripped)[:3]) or "none"
        raise UserError(f"no known names among its {len(stripped)} tensors ({some}, ...); expected a ResNet checkpoint")
    renamed, left = {}, []
    for name, tensor in stripped.items():
        ours = rename(name, layout)
        if ours is None:
            left.append(name)
        else:
            renamed[ours] = tensor
    added = () if layout.biased_heads else add_zero_biases(renamed)
    return Conversion(renamed, layout.writer, layout.method, tuple(left), added)


def convert_timm(state_dict: dict[str, Tensor], arch: str) -> Conversion:
    """The same for weights of a backbone of timm, be they a run's or the backbone's alone, under timm's names."""
    below = f"encoder.{TIMM_TRUNK}"
    if any(isinstance(name, str) and without_wrappers(name).startswith(below) for name in state_dict):
        return convert(state_dict)
    trunk_shapes(arch)  # is there such a model
    known = trunk_tensors(arch)
    named = {
        name: tensor for name, tensor in state_dict.items() if isinstance(name, str) and isinstance(tensor, Tensor)
    }
    trunk = {f"{below}{name}": tensor for name, tensor in named.items() if name in known}
    if not trunk:
        raise UserError(f"no known names among its {len(named)} tensors; expected those of {arch}")
    left = tuple(name for name in named if f"{below}{name}" not in trunk)
    return Conversion(trunk, "timm names", "unknown", left, ())


def add_zero_biases(state_dict: dict[str, Tensor]) -> tuple[str, ...]:
    """Give a head's first convolution the zero bias that an implementation without one has; returns the names."""
    added = []
    for name, weight in list(state_dict.items()):
        bias = name.removesuffix("weight") + "bias"
        if name.endswith(".linear1.weight") and bias not in state_dict:
            state_dict[bias] = torch.zeros(weight.shape[0], dtype=weight.dtype)
            added.append(bias)
    return tuple(added)


def to_pixpro(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under our names, whoever wrote them; what is left out is in `convert`'s account."""
    return convert(state_dict).state_dict


def read_checkpoint(path: str | os.PathLike, arch: str | None = None) -> Checkpoint:
    """A checkpoint, file or folder of weights from anywhere, `hf-hub:NAME` included; nothing in it is executed.

    arch: what it holds where it does not say so, which only weights of timm may not.
    Raises UserError, in one line, for a file that is missing, damaged, foreign, or without a whole backbone.
    """
    folder = folder_of(path)
    contents = read_folder(folder) if folder else load_untrusted(path)
    try:
        return checkpoint_from(contents, arch)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # contents that pose as what they are not, such as dicts with methods replaced
        raise UserError(f"{path}: malformed ({one_line(str(error), error)}); expected a checkpoint") from None


def load_backbone(path: str | os.PathLike, arch: str | None = None) -> nn.Module:
    """The torchvision or timm model with a checkpoint's trunk and no classifier: (B, 3, H, W) -> (B, channels).

    path: a checkpoint, a file or folder of an export, or `hf-hub:NAME`. Images are RGB in 0..1, normalised with
    ImageNet's mean and standard deviation. float32, in train mode as any new module. What follows the last stage in a
    model of timm (a norm, a last convolution) is as initialised, from a fixed seed.
    Raises UserError unless the file holds a whole trunk, of `arch` if that is given.
    """
    checkpoint = read_checkpoint(path, arch)
    if arch is not None and arch != checkpoint.arch:
        raise UserError(f"{path}: holds a {checkpoint.arch}, not a {arch}; leave arch out or name the right one")
    return backbone(checkpoint.trunk(), checkpoint.arch)


def checkpoint_from(contents: Any, arch: str | None = None) -> Checkpoint:
    """The checkpoint in a file's contents; raises UserError, and anything else for contents made to deceive."""
    weights, config = weights_in(contents), settings_in(contents)
    arch = config["arch"] if isinstance(config.get("arch"), str) else arch
    conversion = convert_timm(weights, arch) if arch and is_timm(arch) else convert(weights)
    # Fresh tensor objects, without what may hang on those of the file.
    state_dict = {name: Tensor.detach(tensor) for name, tensor in conversion.state_dict.items()}
    trunk = trunk_of(state_dict)
    arch = arch_of(trunk, arch)
    check_finite(trunk)
    said = config.get("method", config.get("loss"))
    method = said if isinstance(said, str) else conversion.method
    return Checkpoint(state_dict, arch, conversion.writer, method, epochs_in(contents, config), config, conversion.left)


def weights_in(contents: Any) -> dict[str, Tensor]:
    """The state dict inside a checkpoint: under "model" (official, ours), "state_dict" (most others), or all of it."""
    if isinstance(contents, dict):
        for candidate in (contents.get("model"), contents.get("state_dict"), contents):
            if isinstance(candidate, dict) and any(isinstance(value, Tensor) for value in candidate.values()):
                return candidate
    raise UserError("no weights in it: expected a state dict, or one under the key model or state_dict")


def settings_in(contents: Any) -> dict[str, Any]:
    """Plain settings kept beside the weights: ours under config, the official ones under opt, an export's metadata."""
    for name in ("config", "opt", "metadata", "meta"):
        found = contents.get(name) if name in contents else getattr(contents, name, None)
        if isinstance(found, argparse.Namespace):
            found = vars(found)
        if isinstance(found, dict):
            plain = (str, int, float, bool, type(None), list)
            return {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, plain)}
    return {}


def epochs_in(contents: dict, config: dict[str, Any]) -> int | None:
    """How many epochs the weights were trained, if the file says so."""
    said = contents.get("epoch", config.get("epoch"))
    if isinstance(said, str) and said.isdecimal():
        said = int(said)
    return said if isinstance(said, int) and not isinstance(said, bool) else None
