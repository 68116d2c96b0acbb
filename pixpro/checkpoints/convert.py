"""Checkpoints of any known project -> state dicts under our names, with an account of what was used and left."""

import argparse
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pixpro.checkpoints.layouts import layout_of, rename
from pixpro.checkpoints.safe_load import load_untrusted, one_line
from pixpro.checkpoints.trunk import arch_of, check_finite, trunk_of
from pixpro.errors import UserError


@dataclass(frozen=True)
class Conversion:
    """A state dict under our names, and what became of the original's tensors."""

    state_dict: dict[str, Tensor]
    writer: str  # whose key names they were
    method: str
    left: tuple[str, ...]  # names in the original that have no place here
    added: tuple[str, ...]  # our names that stand for something the original does without


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of any known project, under our names; its backbone is whole and finite."""

    state_dict: dict[str, Tensor]
    arch: str  # torchvision's name, from the tensors' shapes
    writer: str
    method: str  # "pixpro", "pixcontrast", "moco", ...; "unknown" where the file does not say
    epoch: int | None  # epochs trained
    config: dict[str, Any]  # settings of the run, plain values only
    left: tuple[str, ...]

    def trunk(self) -> dict[str, Tensor]:
        """The online encoder's trunk under torchvision's names."""
        return trunk_of(self.state_dict)


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


WRAPPERS = {"module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def without_wrappers(name: str) -> str:
    """A tensor's name without the parts of DistributedDataParallel, torch.compile and others, wherever they stand."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


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


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """A checkpoint or file of weights from anywhere; nothing in it is executed.

    Raises UserError, in one line, for a file that is missing, damaged, foreign, or without a whole backbone.
    """
    contents = load_untrusted(path)
    try:
        return checkpoint_from(contents)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # contents that pose as what they are not, such as dicts with methods replaced
        raise UserError(f"{path}: malformed ({one_line(str(error), error)}); expected a checkpoint") from None


def checkpoint_from(contents: Any) -> Checkpoint:
    """The checkpoint in a file's contents; raises UserError, and anything else for contents made to deceive."""
    conversion = convert(weights_in(contents))
    # Fresh tensor objects, without what may hang on those of the file.
    state_dict = {name: Tensor.detach(tensor) for name, tensor in conversion.state_dict.items()}
    trunk = trunk_of(state_dict)
    arch = arch_of(trunk)
    check_finite(trunk)
    config = settings_in(contents)
    said = config.get("method", config.get("loss"))
    return Checkpoint(
        state_dict,
        arch,
        conversion.writer,
        said if isinstance(said, str) else conversion.method,
        epochs_in(contents, config),
        config,
        conversion.left,
    )


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
