"""Steps of the trainer on a GPU in which every wait of the host is an error, but the one that is meant.

    python benchmarks/gpu/waits.py --amp bf16 --images 32 --json waits.json

`torch.cuda.set_sync_debug_mode("error")` raises at a copy or a read that waits for the device; `all_finite`, which
reads whether the step may count, is allowed. Where one raises, the line of ours is told and the exit code is 1.
"""

import argparse
import json
import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.measuring.timing import describe_machine
from pixpro import PixContrast, PixPro
from pixpro.data import Batch
from pixpro.data.augment import draw_colour
from pixpro.data.views import View
from pixpro.training import engine
from pixpro.training.engine import Trainer
from pixpro.training.half_precision import amp_dtype
from pixpro.training.optim import make_optimizer
from pixpro.training.sync_batchnorm import BatchNorm

MODELS = {
    "pixpro": PixPro,
    "pixcontrast": PixContrast,
    "instance": lambda arch: PixPro(arch, instance_weight=1.0),
    "fpn": lambda arch: PixPro(arch, neck="fpn"),
}


def allowed(function: Callable) -> Callable:
    """The function, in which the host may wait."""

    def run(*args: object) -> object:
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        try:
            return function(*args)
        finally:
            torch.cuda.set_sync_debug_mode(mode)

    return run


def batch_of(images: int, side: int, device: torch.device) -> Batch:
    """Random views with colours that are drawn by the recipe."""
    rng = random.Random(0)
    pixels = torch.randint(0, 256, (2, images, side, side, 3), dtype=torch.uint8).permute(0, 1, 4, 2, 3).to(device)
    boxes = torch.tensor([[0.0, 0.0, 0.8, 0.8], [0.9, 0.1, 0.2, 1.0]], device=device)[:, None].expand(2, images, 4)
    colours = [torch.tensor([draw_colour(rng, role) for _ in range(images)], device=device) for role in (0, 1)]
    views = [View(*each) for each in zip(pixels, boxes.contiguous(), strict=True)]
    return Batch(*views, *colours, torch.arange(images), torch.zeros(images, dtype=torch.bool))


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when no step waited where it should not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pixpro", choices=MODELS)
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--amp", default="auto", choices=["auto", "off", "bf16", "fp16"])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    device = torch.device("cuda")
    model = MODELS[args.model](args.arch).to(device, memory_format=torch.channels_last)
    model = BatchNorm.convert(model)
    optimizer = make_optimizer("lars", model, lr=0.1, momentum=0.9, weight_decay=1e-5)
    rates = {"lr_at": lambda step: 0.1, "momentum_at": lambda step: 0.99}
    trainer = Trainer(model, optimizer, device=device, amp_dtype=amp_dtype(args.amp, device), **rates)
    trainer.join_counters()
    batch = batch_of(args.images, args.side, device)
    engine.all_finite = allowed(engine.all_finite)
    for number in range(3):  # kernels are chosen and colours compiled
        trainer.step([batch], number)
    torch.cuda.synchronize()
    where: list[str] = []
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in range(3, 6):
            trainer.step([batch], number)
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "/pixpro/" in f.filename]
        where = [f"{Path(frame.filename).name}:{frame.lineno} {frame.line}" for frame in frames[-2:]]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    told = {"machine": describe_machine(device), "model": args.model, "amp": args.amp, "waits_at": where}
    print(json.dumps(told))
    if args.json:
        args.json.write_text(json.dumps(told) + "\n")
    return 1 if where else 0


if __name__ == "__main__":
    sys.exit(main())
