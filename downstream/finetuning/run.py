"""One fine-tuning run with detectron2: checks, training or testing, results."""

import argparse
import os
import socket
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import launch
from detectron2.utils.file_io import PathManager

from downstream.finetuning.classes import own_classes, register_classes
from downstream.finetuning.config import build_config, lookup
from downstream.finetuning.config_check import check_config, trained_settings, weights_settings
from downstream.finetuning.paths import missing_paths
from downstream.finetuning.worker import work
from pixpro.errors import UserError

TRIAL = Path(__file__).resolve().parents[1] / "configs" / "cpu_trial.yaml"
DOWNLOAD_SECONDS = 15  # without an answer, before a download counts as impossible


def run(arguments: argparse.Namespace) -> None:
    """Check everything that can be wrong, say what was adapted, then start the processes."""
    if arguments.num_machines > 1 and arguments.dist_url == "auto":
        raise UserError("several machines find each other by --dist-url tcp://HOST:PORT, the same on each of them")
    gpus = number_of_gpus(arguments.num_gpus, arguments.options)
    cfg, notes = build_config(
        [arguments.config_file, arguments.overlay, *([TRIAL] if arguments.trial else [])],
        weights=arguments.weights,
        output_dir=arguments.output_dir,
        options=arguments.options,
        processes=max(1, gpus) * arguments.num_machines,
        device="cuda" if gpus else "cpu",
    )
    if arguments.trial:
        notes.append("a trial at small sizes: the result says nothing about the weights")
    root, names = Path(os.environ["DETECTRON2_DATASETS"]), (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    if absent := missing_paths(root, names):
        raise UserError(f"no data: {absent[0]} is missing; DETECTRON2_DATASETS is {root}")
    classes = own_classes(root, names)
    if classes is not None:
        register_classes(root, names, classes)
        notes.append(f"{len(classes)} classes of the data instead of the benchmark's: {', '.join(classes)}")
        cfg.defrost()
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(classes)
        cfg.freeze()
    weights = check_weights(cfg, resume=arguments.resume, eval_only=arguments.eval_only)
    for note in notes:
        print(note, flush=True)
    launch(
        work,
        gpus,
        num_machines=arguments.num_machines,
        machine_rank=arguments.machine_rank,
        dist_url=arguments.dist_url,
        args=(cfg, arguments, weights, classes, notes),
    )


def number_of_gpus(wanted: int | None, options: list[str]) -> int:
    """GPUs to use on this machine: the wanted number, or all there are; 0 means the CPU."""
    available = torch.cuda.device_count()
    on_cpu = ("MODEL.DEVICE", "cpu") in zip(options[::2], options[1::2], strict=False)
    if wanted is None:
        return 0 if on_cpu else available
    if not 0 <= wanted <= available:
        raise UserError(f"--num-gpus {wanted}, but this machine has {available}")
    return 0 if on_cpu else wanted


def check_weights(cfg: CfgNode, *, resume: bool, eval_only: bool) -> Path | None:
    """The local weight file that the run starts from, once its settings equal the config's; None for none.

    A resumed run must fit the config.yaml of its output folder instead, whose checkpoint it goes on from.
    """
    output = Path(cfg.OUTPUT_DIR)
    has_checkpoint = (output / "last_checkpoint").is_file()
    if resume and not has_checkpoint:
        raise UserError(f"nothing to resume: {output} holds no checkpoint; start without --resume")
    if resume:
        check_config(trained_settings(output), lambda key: lookup(cfg, key), f"of the run in {output}")
        return None
    if has_checkpoint and not eval_only:
        raise UserError(f"{output} holds a run already; go on with --resume, or choose another --output-dir")
    if not cfg.MODEL.WEIGHTS:
        if eval_only:
            raise UserError(
                "--eval-only needs weights: MODEL.WEIGHTS model_final.pth, or --resume for the last checkpoint"
            )
        print("no weights given: training from random initialisation", flush=True)
        return None
    path = local_file(cfg.MODEL.WEIGHTS)
    check_config(weights_settings(path), lambda key: lookup(cfg, key), cfg.MODEL.WEIGHTS)
    return path


def local_file(weights: str) -> Path:
    """The weights on this machine, downloaded by detectron2 if they are a URL."""
    if "://" not in weights:
        return Path(weights)
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_SECONDS)
    try:
        return Path(PathManager.get_local_path(weights))
    except Exception as error:  # whatever the network, the proxy or the server came up with
        name = weights.rsplit("/", 1)[-1]
        raise UserError(
            f"cannot download {weights} ({error}); fetch it elsewhere and name the file with MODEL.WEIGHTS, "
            f"or put it beside the scripts as downstream/{name}"
        ) from error
    finally:
        socket.setdefaulttimeout(patience)
