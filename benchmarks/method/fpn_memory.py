"""Peak memory of a training step on the CPU for choices of pyramid levels: table on stdout.

    python benchmarks/method/fpn_memory.py --batch 32 --levels none 5 4,5 3,4,5 2,3,4,5

Each row is a process of its own: one step of PixPro (forward, backward, LARS, momentum update) in float32 on random
images; "start" is the process before the model is built, "peak" the most it ever held, both in GiB.
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.measuring.memory import in_new_process, peak_gib
from pixpro.data.views import View
from pixpro.method.model import PixPro
from pixpro.training.optim import LARS, parameter_groups


def one_step(arch: str, hidden_dim: int, size: int, batch: int, levels: str) -> tuple[float, float]:
    """GiB that this process holds before a step, and at its peak."""
    start = peak_gib()
    neck = {} if levels == "none" else {"neck": "fpn", "levels": [int(level) for level in levels.split(",")]}
    model = PixPro(arch, hidden_dim=hidden_dim, **neck).to(memory_format=torch.channels_last)
    optimizer = LARS(parameter_groups(model, 1e-5), lr=1.0)
    views = []
    for _ in range(2):
        corners = torch.rand(batch, 2) * 0.4
        views.append(View(torch.randn(batch, 3, size, size), torch.cat((corners, corners + 0.5), dim=1)))
    model(*views).backward()
    optimizer.step()
    model.update_momentum(0.99)
    return start, peak_gib()


def main() -> None:
    """Run one process per choice of levels."""
    parser = argparse.ArgumentParser(description="Peak memory of a step with a feature pyramid, on the CPU.")
    parser.add_argument("--levels", nargs="+", default=["none", "5", "4,5", "3,4,5", "2,3,4,5"], metavar="L,L")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--hidden_dim", type=int, default=4096)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    print(f"{args.arch}, hidden {args.hidden_dim}, {args.size} px, torch {torch.__version__}\n")
    print("| levels     | batch | start | peak  |\n|---|---|---|---|", flush=True)
    for levels in args.levels:
        found = in_new_process(one_step, args.arch, args.hidden_dim, args.size, args.batch, levels)
        told = f"{found[0]:5.2f} | {found[1]:5.2f}" if found else "failed: out of memory?"
        print(f"| {levels:10} | {args.batch:5} | {told} |", flush=True)


if __name__ == "__main__":
    main()
