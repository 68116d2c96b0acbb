"""What detect.py and segment.py share as programs: start of processes, resuming, errors as one line."""

import argparse
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from downstream.common.precision import require_alike, resolved
from pixpro.checkpoints import checkpoint
from pixpro.checkpoints.convert import load_backbone, read_checkpoint
from pixpro.checkpoints.model_folder import HUB
from pixpro.data.cores import share_cores
from pixpro.errors import UserError, one_line_errors, printable
from pixpro.method.trunks import new_backbone
from pixpro.run.output import lasting_output
from pixpro.training.distributed import Process, join, launch, leave

# Settings that came later, and what runs had before.
BEFORE = {"amp": "off"}

# Settings that may differ between a run and its continuation: they do not change its numbers, except that another
# number of processes goes on with other batches.
FREE = {"resume", "output_dir", "workers", "log_every", "save_every", "pictures", "data", "weights", "nproc"}
FREE |= {"notes", "backbone"}  # what check found out


@one_line_errors
def run_program(
    args: argparse.Namespace,
    check: Callable[[argparse.Namespace], list[str]],
    run: Callable[[argparse.Namespace, Process], None],
) -> int:
    """Check everything, then run in as many processes as asked for; returns the exit code, 2 for wrong input.

    check must raise UserError for whatever is wrong before anything is written, and returns what there is to say
    about the data, a line each; it becomes args.notes.
    """
    processes = 1 if "RANK" in os.environ else args.nproc or max(1, torch.cuda.device_count())
    world_size = int(os.environ.get("WORLD_SIZE", processes))
    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise UserError(f"--nproc {processes}, but this machine has {torch.cuda.device_count()} GPUs")
    if args.batch_size % world_size:
        raise UserError(f"--batch-size {args.batch_size} cannot be shared by {world_size} processes equally")
    args.amp, warning = resolved(args.amp, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    args.notes = check(args)
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(warning)
        for note in args.notes:
            print(f"note: {printable(note)}", flush=True)
    return launch(run_process, processes, run, args) if processes > 1 else run_process(run, args)


@lasting_output()
@one_line_errors
def run_process(run: Callable[[argparse.Namespace, Process], None], args: argparse.Namespace) -> int:
    """Run as one process of the group, whether or not somebody reads what it prints; returns its exit code."""
    try:
        process = join()
        workers, threads = share_cores(process.local_world_size, process.device.type == "cuda")
        args.workers = workers if args.workers < 0 else args.workers
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(threads)
        require_alike(args.amp, process)
        run(args, process)
    finally:
        leave()
    return 0


def load_trunk(weights: str, arch: str | None) -> nn.Module:
    """The torchvision or timm model with the checkpoint's trunk, or for `none` one as pre-training starts from."""
    if weights == "none":
        return random_trunk(arch or "resnet50")
    if not weights.startswith(HUB) and not Path(weights).exists():
        raise UserError(f"no checkpoint {weights}; give a file, or `none` for a trunk at random")
    return load_backbone(weights, arch)


def random_trunk(arch: str) -> nn.Module:
    """The torchvision or timm model as pre-training starts from."""
    try:
        return new_backbone(arch)
    except ValueError as error:
        raise UserError(f"--arch {arch}: {error}") from None


def trunk_arch(weights: str, arch: str | None) -> str:
    """The name of the model that `load_trunk` gives."""
    return (arch or "resnet50") if weights == "none" else read_checkpoint(weights, arch).arch


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings as plain types, for the checkpoint and the results."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}


def write_json(path: Path, content: dict) -> None:
    """content as JSON; the file appears complete or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(partial, path)


def peak_memory(process: Process) -> float:
    """Most memory held so far, in GiB: the GPU's, or on a CPU this process's."""
    if process.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def check_output(args: argparse.Namespace) -> None:
    """UserError when the output folder is taken, or --resume does not fit to these settings."""
    folder = args.output_dir
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; --output-dir expects a folder")
    if args.resume:
        path = to_resume(args)
        if path is not None:
            resumable(path, args)
    elif (folder / checkpoint.LAST).exists():
        raise UserError(f"{folder} holds a run already; go on with --resume auto or give another --output-dir")


def to_resume(args: argparse.Namespace) -> Path | None:
    """The checkpoint that --resume asks for; None with `auto` in a folder that has none, or without --resume."""
    last = args.output_dir / checkpoint.LAST
    if args.resume == "auto":
        return last if last.exists() else None
    return Path(args.resume) if args.resume else None


def resumable(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The state at path; UserError when it was made with other settings than these."""
    state = checkpoint.load(path)
    made_with, now = state["config"], settings(args)
    for name in sorted(now.keys() - FREE):
        found = made_with.get(name, BEFORE.get(name)) if isinstance(made_with, dict) else None
        if not isinstance(made_with, dict) or found != now[name]:
            option = "--" + name.replace("_", "-")
            raise UserError(f"{path} was made with {option} {found}, this run has {now[name]}; make them the same")
    return state
