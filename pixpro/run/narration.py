"""What a run says about itself at its beginning and its end."""

from pathlib import Path

import torch

from pixpro.checkpoints.checkpoint import LAST
from pixpro.data import Loader
from pixpro.monitor.matching import MatchingScore
from pixpro.training.engine import Trainer
from pixpro.training.processes import Process


def introduce(method: str, loader: Loader, trainer: Trainer, process: Process, last_step: int) -> str:
    """What is going to happen."""
    precision = {None: "float32", torch.bfloat16: "bf16", torch.float16: "fp16"}[trainer.amp_dtype]
    epochs = last_step // len(loader)
    resumed = f", going on after step {trainer.good_step} of {last_step}" if trainer.good_step else ""
    return (
        f"{method}: {len(loader.source)} images, batch {loader.order.batch_size}, "
        f"{epochs} epoch{'s' if epochs > 1 else ''} of {len(loader)} steps{resumed}, "
        f"peak learning rate {trainer.optimizer.defaults['lr']:.4g}\n"
        f"{process.world_size} process(es) on {process.device.type}, {precision}, "
        f"{loader.workers} loader worker(s) each, JPEG files decoded by {loader.decoder}"
        + (f"\n{loader.source.left_out}" if loader.source.left_out else "")
    )


def conclude(folder: Path, before: MatchingScore | None, after: MatchingScore | None) -> str:
    """What was written, what was learned, and what to do next."""
    last = folder / LAST
    lines = [f"\nwritten to {folder}: {', '.join(sorted(path.name for path in folder.glob('[!.]*')))}"]
    if after:
        untrained = f"{before.accuracy:.3f} before training, " if before else ""
        lines.append(
            f"dense matching accuracy on {after.images} held-out images: {untrained}{after.accuracy:.3f} now, "
            f"{after.chance:.3f} by chance"
        )
    lines.append(
        f"next: tensorboard --logdir {folder}\n"
        f"      cd downstream && python convert-pretrain-to-detectron2.py {last.resolve()} pixpro.pkl\n"
        f"      python -c \"import pixpro; print(pixpro.load_backbone('{last}'))\""
    )
    return "\n".join(lines)
