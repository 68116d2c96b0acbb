"""A checkpoint and a run's settings -> may this run go on from it, and what has been changed in between."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixpro.checkpoints.checkpoint import LAST, load, load_newest
from pixpro.checkpoints.initialise import initialise
from pixpro.errors import UserError
from pixpro.training.engine import Trainer

# What the tensors' shapes or the meaning of a step number depend on.
FIXED = (
    *("loss", "arch", "neck", "levels", "hidden_dim", "dim", "num_linear", "instance_weight", "instance_loss"),
    *("optimizer", "batch_size", "seed"),
)
# What changes where and how fast something is computed, but not what.
FREE = (
    *("data", "val_data", "demo", "init", "resume", "output_dir", "multiprocessing_distributed", "nproc", "workers"),
    *("compile", "max_bad", "timeout", "save_every", "keep", "keep_every", "log_every", "eval_every", "report"),
)


def begin(
    trainer: Trainer, found: tuple[Path, dict] | None, *, settings: Mapping[str, Any], images: int, init: str
) -> str:
    """Give the trainer its first state: a found checkpoint's, else that of `init`, else that of its seed.

    settings: all of this run, by name. Returns what the user should know about it, if anything.
    """
    if found is None:
        return f"{initialise(trainer.core, init)}\n" if init else ""
    path, state = found
    changed = changes(path, state["config"], settings, (state.get("images"), images))
    trainer.load_state(state)
    return f"settings changed since {path}: {changed}\n" if changed else ""


def find_state(resume: str, folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that --resume asks for and its state; None for a start from the beginning.

    `auto` takes the newest good one of the run's folder, if there is any. UserError when a path leads to no good one.
    """
    if not resume:
        return None
    if resume != "auto":
        return Path(resume), load(Path(resume))
    found = load_newest(folder, lambda text: print(f"warning: {text}", flush=True))
    if found is None:
        print(f"--resume auto: no checkpoint in {folder} yet, starting from the beginning", flush=True)
    elif found[0].name != LAST:
        print(f"--resume auto: going on from {found[0]}, the newest good checkpoint", flush=True)
    return found


def changes(path: Path, saved: Mapping[str, Any], present: Mapping[str, Any], images: tuple[int, int]) -> str:
    """The settings that differ from those of a checkpoint, for the user to see; "" when none does.

    images: their number when the checkpoint was written, and now. UserError when the run would be another one.
    """
    for name in FIXED:
        if saved.get(name) != present[name]:
            raise UserError(
                f"{path} was trained with --{name} {saved.get(name)}, this run has {present[name]}; "
                f"give the same settings, or start a new run from its weights with --init {path}"
            )
    if images[0] != images[1]:
        raise UserError(
            f"{path} was trained on {images[0]} images, this run found {images[1]}: their order would be another; "
            f"restore the data, or start a new run from its weights with --init {path}"
        )
    free = {*FIXED, *FREE}
    return ", ".join(
        f"{name} {saved[name]} -> {present[name]}"
        for name in present
        if name not in free and name in saved and saved[name] != present[name]
    )
