"""Every setting once: name, type, default, help; the command line is made from it, and its open ends are filled in."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pixpro.checkpoints.saver import Interval
from pixpro.command_line import build_parser, setting
from pixpro.method.encoder import ARCHS, NECKS
from pixpro.method.instance import INSTANCE_LOSSES
from pixpro.method.neck import LEVELS
from pixpro.scenes import sample_scenes


@dataclass(frozen=True)
class Config:
    """Settings of one pre-training run; defaults are the published 100-epoch recipe."""

    # What to train on
    data: list[str] = setting(
        ["datasets/imagenet/train"],
        "image folders, searched to any depth, and tar or zip files; several are mixed",
        alias="train_path",
    )
    val_data: list[str] = setting([], "held-out images on which dense matching accuracy is measured")
    demo: bool = setting(False, "train a small network on built-in sample images: no data, no GPU, a few minutes")
    plan: bool = setting(False, "measure a few steps, say what the run would take and which settings suit, and stop")
    # Method
    loss: str = setting("pixpro", "which method to train", choices=("pixpro", "pixcontrast"))
    arch: str = setting("resnet50", "backbone", choices=ARCHS)
    neck: str = setting("none", "what sits on the backbone: nothing, or a feature pyramid as in FPN detectors", NECKS)
    levels: list[int] = setting(
        [3, 4, 5], "pyramid levels in the loss, 2 to 5, of stride 2^level; 2 costs most", LEVELS
    )
    hidden_dim: int = setting(
        4096, "width of the hidden layer of the heads (the paper's text says 2048)", low=1, high=65536
    )
    dim: int = setting(256, "channels of the projected cells", low=1, high=65536)
    num_linear: int = setting(1, "layers of the propagation module's transform", choices=(0, 1, 2))
    sharpness: float = setting(2.0, "exponent of the similarities in pixel propagation", low=0, high=100)
    threshold: float = setting(0.7, "cells closer than this many bin diagonals are positives", low=0.01, high=100)
    temperature: float = setting(0.3, "temperature of PixContrast", low=1e-3, high=100)
    distance: str = setting(
        "image",
        "image: each axis relative to the image's side, as the published weights; pixel: isotropic, the paper's text",
        choices=("image", "pixel"),
    )
    instance_weight: float = setting(
        0.0, "weight of the instance branch; 0 leaves it out, the paper adds it with 1", low=0, high=1e6
    )
    instance_loss: str = setting(
        "regression",
        "form of the instance branch: regression as in the official code, contrast as in the paper",
        INSTANCE_LOSSES,
    )
    instance_temperature: float = setting(0.2, "temperature of the instance branch's contrast", low=1e-3, high=100)
    init: str = setting(
        "", "weights to start from: a checkpoint of any known project, or imagenet (supervised weights)"
    )
    # Optimisation
    epochs: int = setting(100, "passes over the images", low=1, high=100_000)
    batch_size: int = setting(
        1024, "images per optimizer step, over all processes and accumulation steps", low=1, high=2**24
    )
    accumulation: int = setting(1, "forward and backward passes per optimizer step", low=1, high=65536)
    optimizer: str = setting("lars", "optimizer", choices=("lars", "sgd"))
    lr_base: float = setting(1.0, "learning rate per 256 images", low=0, high=1e6)
    lr_rule: str = setting("linear", "how the learning rate follows the batch", choices=("linear", "sqrt"))
    warmup_epochs: float = setting(5.0, "epochs of linear warm-up", low=0, high=1e5)
    weight_decay: float = setting(1e-5, "weight decay of matrices and kernels", low=0, high=10)
    momentum: float = setting(0.9, "momentum of the optimizer", low=0, high=0.9999)
    momentum_base: float = setting(
        0.99, "first coefficient of the momentum encoder; it rises to 1 along a cosine", low=0, high=1
    )
    # Views
    image_size: int = setting(224, "side of the crops in pixels", low=32, high=1024)
    crop_min: float = setting(0.08, "smallest crop as a share of the image's area", low=1e-3, high=1)
    max_bad: float = setting(
        0.01, "largest share of unreadable image files that are replaced without stopping", low=0, high=1
    )
    # Machine
    multiprocessing_distributed: bool = setting(
        False, "one process per GPU of this machine (on CPUs: --nproc processes)"
    )
    nproc: int = setting(
        0, "processes to start with --multiprocessing-distributed; 0: one per GPU, or one on a CPU", low=0, high=1024
    )
    workers: int = setting(-1, "loader processes per training process; -1: chosen from the cores", low=-1, high=1024)
    decode: str = setting(
        "cpu", "where JPEG files are decoded; gpu (nvJPEG) is for few cores per GPU", choices=("cpu", "gpu")
    )
    amp: str = setting("auto", "mixed precision", choices=("auto", "bf16", "fp16", "off"))
    compile: bool = setting(
        False,
        "make faster code for the encoders with torch.compile: minutes at the start, the same numbers to rounding",
    )
    seed: int = setting(0, "seed of the weights, the order of the images and the views", low=0, high=2**63 - 1)
    timeout: float = setting(
        10.0, "minutes without a finished step after which several processes end with an error", low=0.05, high=1e5
    )
    deterministic: bool = setting(False, "the same bits on each run on the same GPUs, at some cost; on CPUs always so")
    # Output
    output_dir: str = setting("", "where everything is written; default output/NAME from method, arch and epochs")
    resume: str = setting("", "checkpoint to go on from, or auto: the newest one in the output folder")
    save_every: str = setting("10min", "how often last.pth.tar is written, such as 10min, 500steps or 1ep")
    keep: int = setting(2, "how many of these states stay: last.pth.tar, last-1.pth.tar, ...", low=1, high=1000)
    keep_every: int = setting(
        10,
        "epochs between checkpoints that stay for good as NNNN.pth.tar; the last one always does",
        low=1,
        high=100_000,
    )
    report: bool = setting(False, "write report.html at the end: settings, curves, scores, pictures at both ends")
    log_every: int = setting(20, "steps between lines of metrics", low=1, high=10**9)
    eval_every: int = setting(
        10,
        "epochs between pictures of pairs and measurements of dense matching accuracy; 0: only at both ends",
        low=0,
        high=100_000,
    )


# What fits into minutes on two CPU cores. PixContrast learns visibly in 180 steps, PixPro takes thousands.
DEMO = {
    "loss": "pixcontrast",
    "arch": "resnet18",
    "hidden_dim": 512,
    "image_size": 128,
    "batch_size": 16,
    "epochs": 9,
    "warmup_epochs": 1.0,
    "lr_base": 16.0,
    "momentum_base": 0.9,
    "log_every": 5,
    "eval_every": 0,
    "amp": "off",  # the same figures on CPUs with and without half-precision instructions
}
DEMO_PIXPRO = DEMO | {"loss": "pixpro", "lr_base": 3.0, "momentum_base": 0.99}


def parse_args(argv: list[str] | None = None) -> Config:
    """The configuration that a command line asks for; exits with code 2 and one line when it makes no sense."""
    description = "Pre-train a backbone on unlabelled images with PixPro or PixContrast."
    parser = partial(build_parser, Config, prog="train.py", description=description)
    given = parser({}).parse_args(argv)
    if given.demo:
        loss = parser(DEMO).parse_args(argv).loss
        given = parser(DEMO_PIXPRO if loss == "pixpro" else DEMO).parse_args(argv)
    return Config(**vars(given))


def settle(config: Config) -> Config:
    """The configuration with its open ends filled in; UserError when it makes no sense. Nothing is written."""
    Interval.parse(config.save_every)
    if config.demo:
        scenes = sample_scenes()
        config = dataclasses.replace(config, data=[str(scenes / "train")], val_data=[str(scenes / "held_out")])
    name = f"demo_{config.loss}" if config.demo else f"{config.loss}_{config.arch}_{config.epochs}ep"
    return dataclasses.replace(config, output_dir=config.output_dir or str(Path("output", name)))


def shared_settings(config: Config) -> dict[str, Any]:
    """The settings that all processes must share; where its images are is a machine's own affair."""
    own = ("data", "val_data", "workers", "init", "resume")
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in own}
