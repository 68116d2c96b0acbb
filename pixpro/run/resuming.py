"""A checkpoint and a run's settings -> may this run go on from it, and what has been changed in between."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pixpro.checkpoints.checkpoint import LAST, load, load_newest
from pixpro.checkpoints.initialise import initialise
from pixpro.errors import UserError
from pixpro.images import ImageSet
from pixpro.training.distributed import copy_from_main
from pixpro.training.engine import Trainer
from pixpro.training.processes import Process


class Start(NamedTuple):
    """From where a run begins."""

    found: bool  # whether from a checkpoint
    from_last: bool  # and that is its own folder's last.pth.tar
    account: str  # what the user should know about it


def first_state(
    trainer: Trainer,
    process: Process,
    folder: Path,
    settings: Mapping[str, Any],
    on_resume: Mapping[str, str],
    images: ImageSet,
) -> Start:
    """Give the trainers of all processes their first state, from where --resume and --init among the settings say."""
    with process.together("reading the checkpoint"):
        found = find_state(settings["resume"], folder) if process.is_main else None
    found = process.from_main(found)
    with process.together("taking up the weights"):
        init = settings["init"] if process.is_main else ""
        account = begin(trainer, found, settings=settings, on_resume=on_resume, images=images, init=init)
    copy_from_main(trainer.core)
    return Start(found is not None, found is not None and found[0].resolve() == (folder / LAST).resolve(), account)


def begin(
    trainer: Trainer,
    found: tuple[Path, dict] | None,
    *,
    settings: Mapping[str, Any],
    on_resume: Mapping[str, str],
    images: ImageSet,
    init: str,
) -> str:
    """Give the trainer its first state: a found checkpoint's, else that of `init`, else that of its seed.

    settings: all of this run, by name; on_resume: what another value does, "refused", "trains", "runs" or "unused".
    Returns what the user should know about it, if anything.
    """
    if found is None:
        return f"{initialise(trainer.core, init)}\n" if init else ""
    path, state = found
    require_same_images(path, state, images)
    told = changes(path, state["config"], settings, on_resume)
    trainer.load_state(state)
    return told


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


def require_same_images(path: Path, state: Mapping[str, Any], images: ImageSet) -> None:
    """UserError unless the run has the images of the checkpoint: then a number names the same one in both."""
    count, fingerprint = state.get("images"), state.get("images_fingerprint", images.fingerprint)  # older ones had none
    if (count, fingerprint) == images:
        return
    other = ", under other names or of other sizes" if count == images.count else ""
    raise UserError(
        f"{path} was trained on {count} images, this run found {images.count}{other}: their order would be another; "
        f"restore the data, or start a new run from its weights with --init {path}"
    )


def changes(path: Path, saved: Mapping[str, Any], present: Mapping[str, Any], on_resume: Mapping[str, str]) -> str:
    """Lines on the settings that differ from those of a checkpoint; "" when there is nothing to say.

    UserError when one differs that has to stay.
    """
    differ = [name for name in present if name in saved and saved[name] != present[name]]
    for name in present:
        if on_resume[name] == "refused" and saved.get(name) != present[name]:
            raise UserError(
                f"{path} was trained with --{name} {saved.get(name)}, this run has {present[name]}; "
                f"give the same settings, or start a new run from its weights with --init {path}"
            )
    told = ", ".join(f"{name} {saved[name]} -> {present[name]}" for name in differ if on_resume[name] == "trains")
    unused = [name for name in differ if on_resume[name] == "unused" and present[name]]
    return "".join(
        [
            f"settings changed since {path}: {told}\n" if told else "",
            *(f"--{name} {present[name]} is not used: the weights are those of {path}\n" for name in unused),
        ]
    )
