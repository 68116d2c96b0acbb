"""One pre-training of one method on one data set, with the settings of a scale: train.py, resumed where it stopped."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import train
from benchmarks.evidence.supervised import train_supervised
from benchmarks.evidence.trunk import SMALL, small_trunk
from pixpro.errors import UserError


@dataclass(frozen=True)
class Scale:
    """Settings of all runs of a size; `images` are seen in a run, `settings` go to train.py as they are."""

    arch: str
    image_size: int
    batch_size: int
    images: int
    settings: tuple[str, ...]
    segmentation: tuple[int, ...]  # of the fine-tuned FCN: iterations, batch, crop; every so many-th test image


SCALES = {
    "cpu": Scale(
        arch=SMALL,
        image_size=64,
        batch_size=32,
        images=16_000,
        settings=("--hidden_dim", "512", "--dim", "128", "--lr_base", "8", "--momentum_base", "0.99", "--amp", "off"),
        segmentation=(100, 8, 160, 3),
    ),
    # 128 px and a pyramid: 16 x 16 and 8 x 8 cells, of the coarser of which an FCN or a C4 detector starts
    "gpu": Scale(
        arch="resnet18",
        image_size=128,
        batch_size=256,
        images=500_000,
        settings=("--hidden_dim", "2048", "--lr_base", "1", "--neck", "fpn", "--levels", "3", "4", "--workers", "14"),
        segmentation=(2000, 16, 321, 1),
    ),
}
METHODS = {
    "untrained": (),
    "PixPro": ("--loss", "pixpro"),
    "PixContrast": ("--loss", "pixcontrast"),
    "PixPro + instance": ("--loss", "pixpro", "--instance_weight", "1", "--instance_loss", "contrast"),
    "supervised": (),
}


def epochs_of(scale: Scale, count: int) -> int:
    """Passes over `count` images that come closest to the scale's images, at least one."""
    if count < scale.batch_size:
        raise UserError(f"{count} training images; expected at least a batch of {scale.batch_size}")
    return max(1, round(scale.images / (count // scale.batch_size * scale.batch_size)))


def arguments(scale: Scale, method: str, images: Path, count: int, seed: int, folder: Path) -> list[str]:
    """The command line of train.py."""
    epochs = epochs_of(scale, count)
    arch = () if scale.arch == SMALL else ("--arch", scale.arch)
    numbers = {
        "image_size": scale.image_size,
        "batch_size": scale.batch_size,
        "epochs": epochs,
        "warmup_epochs": epochs / 20,
        "keep_every": epochs,
        "eval_every": 0,
        "seed": seed,
    }
    given = [word for name, value in numbers.items() for word in (f"--{name}", f"{value:g}")]
    where = ["--data", str(images), "--output_dir", str(folder), "--resume", "auto"]
    return [*METHODS[method], *arch, *scale.settings, *given, *where]


def pretrain(scale: Scale, method: str, data, seed: int, folder: Path) -> tuple[Path | None, dict]:
    """The checkpoint of a run, made unless it is there (None: untrained), and what is to be said of the run."""
    if method == "untrained":
        return None, {"images_seen": 0}
    started = time.perf_counter()
    seen = epochs_of(scale, data.count) * (data.count // scale.batch_size) * scale.batch_size
    facts = {"images_seen": seen, "steps": seen // scale.batch_size}
    if method == "supervised":
        path = folder / "last.pth.tar"
        if not path.exists():
            train_supervised(
                scale.arch, data, path, size=scale.image_size, batch=scale.batch_size, images=seen, seed=seed
            )
        return path, facts | {"seconds": round(time.perf_counter() - started)}
    command = arguments(scale, method, data.images, data.count, seed, folder)
    with small_trunk() if scale.arch == SMALL else contextlib.nullcontext():
        code = train.main(command)
    if code:
        raise UserError(f"train.py ended with exit code {code}; the same command goes on with it")
    settings = command[: command.index("--data")]  # where it lies says nothing to others
    facts |= {"seconds": round(time.perf_counter() - started), "settings": " ".join(settings)}
    return folder / "last.pth.tar", facts
