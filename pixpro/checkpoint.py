"""Checkpoints: written atomically, read without executing anything, resumed exactly."""

import os
from pathlib import Path
from typing import Any

import torch

from pixpro.errors import UserError
from pixpro.safe_load import load_untrusted

LAST = "last.pth.tar"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors and plain types; the file appears complete or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def load(path: Path) -> dict[str, Any]:
    """A state written by `save`, on the CPU. UserError when the file is missing, damaged or not a training state."""
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; expected a file written by train.py, such as {LAST}")
    state = load_untrusted(path)
    if not isinstance(state, dict) or not {"model", "optimizer", "step", "config"} <= state.keys():
        raise UserError(f"{path} holds no training state; expected a checkpoint of train.py (weights: use --init)")
    return state


def find(resume: str, folder: Path) -> Path | None:
    """The checkpoint that --resume asks for: a path, or with `auto` the newest in the folder, None if it has none."""
    if resume != "auto":
        return Path(resume)
    last = folder / LAST
    return last if last.exists() else None
