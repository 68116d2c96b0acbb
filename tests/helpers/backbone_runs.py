"""Command lines of runs of three steps on any backbone."""

from pathlib import Path

STEPS = 3
ADAMW = ("--optimizer", "adamw", "--lr_base", "0.0005")


def arguments(data: Path, output: Path, arch: str, *more: str) -> list[str]:
    small = "--hidden_dim 8 --dim 4 --image_size 64 --batch_size 4 --epochs 1 --warmup_epochs 0 --workers 0 --amp off"
    kept = "--log_every 1 --save_every 1steps --keep 3"
    places = ("--data", str(data), "--output_dir", str(output))
    return [*places, "--arch", arch, *small.split(), *kept.split(), *more]
