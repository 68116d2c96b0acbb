"""Every setting once: name, type, default, help; the command line is made from it, and its open ends are filled in."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from pixpro.checkpoints.saver import Interval
from pixpro.command_line import OnResume, parse, setting
from pixpro.errors import UserError
from pixpro.method.encoder import NECKS, check_settings
from pixpro.method.heads import LEVELS
from pixpro.method.losses import INSTANCE_LOSSES
from pixpro.method.timm_models import is_timm
from pixpro.method.trunks import CHOICES, map_shapes
from pixpro.plan.recipes import recipe_defaults
from pixpro.scenes import sample_scenes

REFUSED, TRAINS, RUNS, UNUSED = OnResume  # what another value does when a run is resumed: each setting says it first


@dataclass(frozen=True)
class Config:
    """Settings of one pre-training run; defaults are the published 100-epoch recipe."""

    # What to train on
    data: list[str] = setting(
        RUNS,
        ["datasets/imagenet/train"],
        "image folders, searched to any depth, and tar or zip files; several are mixed",
        alias="train_path",
        own=True,
    )
    val_data: list[str] = setting(RUNS, [], "held-out images on which dense matching accuracy is measured", own=True)
    demo: bool = setting(
        REFUSED, False, "train a small network on built-in sample images: no data, no GPU, a few minutes"
    )
    plan: bool = setting(
        RUNS, False, "measure a few steps, say what the run would take and which settings suit, and stop"
    )
    recipe: str = setting(
        RUNS,
        "published",
        "where the defaults come from: the published weights, or what was measured on a few thousand images (small)",
        ("published", "small"),
    )
    # Method
    loss: str = setting(REFUSED, "pixpro", "which method to train", choices=("pixpro", "pixcontrast"))
    arch: str = setting(
        REFUSED, "resnet50", "backbone: torchvision's, or timm/NAME of the package timm", choices=CHOICES
    )
    drop_path: float = setting(
        TRAINS, 0.0, "share of residual branches left out at random in training, for backbones of timm", low=0, high=0.9
    )
    neck: str = setting(
        REFUSED,
        "none",
        "what sits on the backbone: nothing (32 pixels a cell), a feature pyramid, or nothing on one stage of it "
        "(--cells c4 is short for --neck stage --levels 4, c5 for none)",
        NECKS,
    )
    levels: list[int] = setting(
        REFUSED,
        [3, 4, 5],
        "levels in the loss, 2 to 5, of stride 2^level; --neck fpn: one or more, --neck stage: one",
        LEVELS,
    )
    hidden_dim: int = setting(
        REFUSED, 4096, "width of the hidden layer of the heads (the paper's text says 2048)", low=1, high=65536
    )
    dim: int = setting(REFUSED, 256, "channels of the projected cells", low=1, high=65536)
    num_linear: int = setting(REFUSED, 1, "layers of the propagation module's transform", choices=(0, 1, 2))
    sharpness: float = setting(TRAINS, 2.0, "exponent of the similarities in pixel propagation", low=0, high=100)
    threshold: float = setting(
        TRAINS, 0.7, "cells closer than this many bin diagonals are positives", low=0.01, high=100
    )
    temperature: float = setting(TRAINS, 0.3, "temperature of PixContrast", low=1e-3, high=100)
    distance: str = setting(
        TRAINS,
        "image",
        "image: each axis relative to the image's side, as the published weights; pixel: isotropic, the paper's text",
        choices=("image", "pixel"),
    )
    instance_weight: float = setting(
        REFUSED, 0.0, "weight of the instance branch; 0 leaves it out, the paper adds it with 1", low=0, high=1e6
    )
    instance_loss: str = setting(
        REFUSED,
        "regression",
        "form of the instance branch: regression as in the official code, contrast as in the paper",
        INSTANCE_LOSSES,
    )
    instance_temperature: float = setting(
        TRAINS, 0.2, "temperature of the instance branch's contrast", low=1e-3, high=100
    )
    init: str = setting(
        UNUSED,
        "",
        "weights to start from: a checkpoint of any known project, imagenet (supervised, of torchvision), or timm",
        own=True,
    )
    # Optimisation
    epochs: int = setting(TRAINS, 100, "passes over the images", low=1, high=100_000)
    batch_size: int = setting(
        REFUSED, 1024, "images per optimizer step, over all processes and accumulation steps", low=1, high=2**24
    )
    accumulation: int = setting(TRAINS, 1, "forward and backward passes per optimizer step", low=1, high=65536)
    optimizer: str = setting(REFUSED, "lars", "optimizer", choices=("lars", "sgd", "adamw"))
    lr_base: float = setting(TRAINS, 1.0, "learning rate per 256 images", low=0, high=1e6)
    lr_rule: str = setting(TRAINS, "linear", "how the learning rate follows the batch", choices=("linear", "sqrt"))
    warmup_epochs: float = setting(TRAINS, 5.0, "epochs of linear warm-up", low=0, high=1e5)
    weight_decay: float = setting(TRAINS, 1e-5, "weight decay of matrices and kernels", low=0, high=10)
    momentum: float = setting(TRAINS, 0.9, "momentum of the optimizer", low=0, high=0.9999)
    momentum_base: float = setting(
        TRAINS, 0.99, "first coefficient of the momentum encoder; it rises to 1 along a cosine", low=0, high=1
    )
    # Views
    image_size: int = setting(TRAINS, 224, "side of the crops in pixels", low=32, high=1024)
    crop_min: float = setting(TRAINS, 0.08, "smallest crop as a share of the image's area", low=1e-3, high=1)
    max_bad: float = setting(
        RUNS, 0.01, "largest share of unreadable image files that are replaced without stopping", low=0, high=1
    )
    # Machine
    multiprocessing_distributed: bool = setting(
        RUNS, False, "one process per GPU of this machine (on CPUs: --nproc processes)"
    )
    nproc: int = setting(
        RUNS,
        0,
        "processes to start with --multiprocessing-distributed; 0: one per GPU, or one on a CPU",
        low=0,
        high=1024,
    )
    workers: int = setting(
        RUNS, -1, "loader processes per training process; -1: chosen from the cores", low=-1, high=1024, own=True
    )
    decode: str = setting(
        TRAINS, "cpu", "where JPEG files are decoded; gpu (nvJPEG) is for few cores per GPU", choices=("cpu", "gpu")
    )
    amp: str = setting(TRAINS, "auto", "mixed precision", choices=("auto", "bf16", "fp16", "off"))
    compile: bool = setting(
        RUNS,
        False,
        "make faster code for the encoders with torch.compile: minutes at the start, the same numbers to rounding",
    )
    seed: int = setting(REFUSED, 0, "seed of the weights, the order of the images and the views", low=0, high=2**63 - 1)
    timeout: float = setting(
        RUNS,
        10.0,
        "minutes without a finished step after which several processes end with an error",
        low=0.05,
        high=1e5,
    )
    deterministic: bool = setting(
        RUNS, False, "the same bits on each run on the same GPUs, at some cost; on CPUs always so"
    )
    # Output
    output_dir: str = setting(
        RUNS, "", "where everything is written; default output/METHOD_ARCH, or output/demo_METHOD"
    )
    resume: str = setting(RUNS, "", "checkpoint to go on from, or auto: the newest one in the output folder", own=True)
    save_every: str = setting(RUNS, "10min", "how often last.pth.tar is written, such as 10min, 500steps or 1ep")
    keep: int = setting(RUNS, 2, "how many of these states stay: last.pth.tar, last-1.pth.tar, ...", low=1, high=1000)
    keep_every: int = setting(
        RUNS,
        10,
        "epochs between checkpoints that stay for good as NNNN.pth.tar; the last one always does",
        low=1,
        high=100_000,
    )
    report: bool = setting(RUNS, False, "write report.html at the end: settings, curves, scores, pictures at both ends")
    log_every: int = setting(RUNS, 20, "steps between lines of metrics", low=1, high=10**9)
    eval_every: int = setting(
        RUNS,
        10,
        "epochs between pictures of pairs and measurements of dense matching accuracy; 0: only at both ends",
        low=0,
        high=100_000,
    )


def parse_args(argv: list[str] | None = None) -> Config:
    """The configuration that a command line asks for; exits with code 2 and one line when it makes no sense."""
    description = "Pre-train a backbone on unlabelled images with PixPro or PixContrast."
    return parse(Config, argv, recipe_defaults, prog="train.py", description=description)


def settle(config: Config) -> Config:
    """The configuration with its open ends filled in; UserError when it makes no sense. Nothing is written."""
    Interval.parse(config.save_every)
    if config.neck == "stage" and len(set(config.levels)) != 1:
        given = " ".join(map(str, config.levels))
        raise UserError(f"--neck stage --levels {given}: expected one level, such as --levels 3 (8 pixels a cell)")
    if config.demo:
        scenes = sample_scenes()
        config = dataclasses.replace(config, data=[str(scenes / "train")], val_data=[str(scenes / "held_out")])
    try:
        check_settings(config.arch, config.neck, config.levels, config.drop_path)
        if is_timm(config.arch):
            map_shapes(config.arch, config.image_size)
    except ValueError as error:
        raise UserError(f"--arch {config.arch}: {error}") from None
    arch = config.arch.replace("/", "_")
    # Without the epochs: a run that is resumed with more of them finds its folder.
    name = f"demo_{config.loss}" if config.demo else f"{config.loss}_{arch}"
    return dataclasses.replace(config, output_dir=config.output_dir or str(Path("output", name)))
