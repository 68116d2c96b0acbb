"""What a run says about itself at its beginning and its end."""

from pathlib import Path
from typing import NamedTuple

import torch

from pixpro.checkpoints.checkpoint import LAST
from pixpro.data import Loader
from pixpro.monitor.matching import MatchingScore
from pixpro.monitor.semantics import SemanticScore
from pixpro.training.engine import Trainer
from pixpro.training.processes import Process


class Learned(NamedTuple):
    """The scores of a network, where they can be measured."""

    matching: MatchingScore | None
    semantics: SemanticScore | None

    def numbers(self) -> dict[str, float]:
        """The scores by the names that they have in metrics.jsonl."""
        scores = {"matching": self.matching, "cells_named": self.semantics}
        return {name: score.accuracy for name, score in scores.items() if score}


NOTHING = Learned(None, None)


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


def conclude(folder: Path, before: Learned, after: Learned) -> str:
    """What was written, what was learned, and what to do next."""
    last = folder / LAST
    lines = [f"\nwritten to {folder}: {', '.join(sorted(path.name for path in folder.glob('[!.]*')))}"]
    for title, untrained, score in (
        ("dense matching accuracy on {} held-out images", before.matching, after.matching),
        ("cells named by a linear classifier on {} held-out images", before.semantics, after.semantics),
    ):
        if score:
            earlier = f"{untrained.accuracy:.3f} before training, " if untrained else ""
            title = title.format(score.images)
            lines.append(f"{title}: {earlier}{score.accuracy:.3f} now, {score.chance:.3f} by chance")
    lines.append(
        f"next: tensorboard --logdir {folder}\n"
        f"      cd downstream && python convert-pretrain-to-detectron2.py {last.resolve()} pixpro.pkl\n"
        f"      python -c \"import pixpro; print(pixpro.load_backbone('{last}'))\""
    )
    return "\n".join(lines)
