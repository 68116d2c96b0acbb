"""One fine-tuning run with detectron2: checks, training or testing, results."""

import argparse
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import launch
from detectron2.utils.file_io import PathManager

from downstream.detection.own_data import Part
from downstream.finetuning.config import build_config
from downstream.finetuning.config_check import SHAPE_KEYS, check_config, lookup, trained_settings, weights_settings
from downstream.finetuning.own_data import (
    OwnData,
    check_benchmark,
    check_masks,
    find_own_data,
    is_benchmark,
    write_files,
)
from downstream.finetuning.paths import missing_paths, present
from downstream.finetuning.worker import work
from pixpro.errors import UserError, printable

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
        iterations=arguments.iterations,
        lr=arguments.lr,
        length=Part(arguments.fraction).length if arguments.fraction else 1.0,
    )
    if arguments.trial:
        notes.append("a trial at small sizes: the result says nothing about the weights")
    own = use_data(cfg, arguments, notes)
    weights = check_weights(cfg, notes, arguments)
    files = write_files(own, Path(cfg.OUTPUT_DIR) / "data") if own else {}
    own = own and replace(own, contents={})  # they are in the files now
    for note in notes:
        print(printable(note), flush=True)
    launch(
        work,
        gpus,
        num_machines=arguments.num_machines,
        machine_rank=arguments.machine_rank,
        dist_url=arguments.dist_url,
        args=(cfg, arguments, weights, own, files, notes),
    )


def use_data(cfg: CfgNode, arguments: argparse.Namespace, notes: list[str]) -> OwnData | None:
    """Check the data and put its classes into the config, in place; None for VOC and COCO as they are."""
    root = Path(os.environ["DETECTRON2_DATASETS"])
    train, test = present(root, cfg.DATASETS.TRAIN), tuple(cfg.DATASETS.TEST)
    if arguments.data is None and (absent := missing_paths(root, (*train, *test))):
        raise UserError(f"no data: {absent[0]} is missing; DETECTRON2_DATASETS is {root}")
    own = find_own_data(arguments, root, train, test)
    if own is None:
        if is_benchmark(root, (*train, *test)):
            notes += check_benchmark(root, train, test)
        return None
    cfg.defrost()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (own.train,), (own.test,)
    names = own.images.class_names
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(names)
    notes += [*own.notes, f"{len(names)} classes of the data instead of the benchmark's: {', '.join(names)}"]
    if cfg.MODEL.MASK_ON and own.contents:
        check_masks(own)
        if own.has_codes and cfg.INPUT.MASK_FORMAT == "polygon":
            cfg.INPUT.MASK_FORMAT = "bitmask"
            notes.append("INPUT.MASK_FORMAT bitmask: the data has masks as run-length codes")
    cfg.freeze()
    return own


def number_of_gpus(wanted: int | None, options: list[str]) -> int:
    """GPUs to use on this machine: the wanted number, or all there are; 0 means the CPU."""
    available = torch.cuda.device_count()
    on_cpu = ("MODEL.DEVICE", "cpu") in zip(options[::2], options[1::2], strict=False)
    if wanted is None:
        return 0 if on_cpu else available
    if not 0 <= wanted <= available:
        raise UserError(f"--num-gpus {wanted}, but this machine has {available}")
    return 0 if on_cpu else wanted


def check_weights(cfg: CfgNode, notes: list[str], arguments: argparse.Namespace) -> Path | None:
    """The local weight file that the run starts from, once its settings equal the config's; None for none.

    The trunk's shape is taken from the weights, in place, where the command line does not say it. A resumed run must
    fit the config.yaml of its output folder instead, whose checkpoint it goes on from.
    """
    output = Path(cfg.OUTPUT_DIR)
    has_checkpoint = (output / "last_checkpoint").is_file()
    if arguments.resume:
        if not has_checkpoint:
            raise UserError(f"nothing to resume: {output} holds no checkpoint; start without --resume")
        fit_config(cfg, trained_settings(output), f"of the run in {output}", notes, arguments)
        return None
    if has_checkpoint and not arguments.eval_only:
        raise UserError(f"{output} holds a run already; go on with --resume, or choose another --output-dir")
    if not cfg.MODEL.WEIGHTS:
        if arguments.eval_only:
            raise UserError(
                "--eval-only needs weights: MODEL.WEIGHTS model_final.pth, or --resume for the last checkpoint"
            )
        print("no weights given: training from random initialisation", flush=True)
        return None
    path = local_file(cfg.MODEL.WEIGHTS)
    fit_config(cfg, weights_settings(path), cfg.MODEL.WEIGHTS, notes, arguments)
    return path


def fit_config(
    cfg: CfgNode, expected: dict[str, Any], source: str, notes: list[str], arguments: argparse.Namespace
) -> None:
    """Give the config the trunk's shape, in place, and hold the rest of it to what the weights expect."""
    given = arguments.options[::2]
    shape = {key: expected[key] for key in SHAPE_KEYS if key in expected and key not in given}
    changes = {key: value for key, value in shape.items() if lookup(cfg, key) != value}
    if changes:
        cfg.defrost()
        cfg.merge_from_list([part for change in changes.items() for part in change])
        cfg.freeze()
        notes.append("the trunk of the weights: " + ", ".join(f"{key} {value}" for key, value in changes.items()))
    check_config(expected, lambda key: lookup(cfg, key), source)


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
