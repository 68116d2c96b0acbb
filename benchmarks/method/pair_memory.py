"""Peak memory and time of the propagation, the pairs and the loss: ours, and with cosines by broadcasting.

    python benchmarks/method/pair_memory.py                 batch 512, maps of 7 x 7 cells of 256 channels
    python benchmarks/method/pair_memory.py --batch 32

One direction, forward and backward. Memory is the most that one pass adds, inputs included, to a process that has done
the same with two images; times are medians in another process. The broadcast version holds tensors of (B, C, N, N),
1.2 GiB each at batch 512, and needs some seven of them.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.measuring.memory import FREED_AT_ONCE, added_peak, in_new_process
from benchmarks.measuring.timing import describe_machine, elapsed
from pixpro.method.geometry import positive_pairs
from pixpro.method.losses import consistency_loss
from pixpro.method.ppm import PixelPropagation

Inputs = tuple[PixelPropagation, Tensor, Tensor, Tensor, Tensor]  # module, cells and keys (B, C, H, W), boxes of both


def ours(module: PixelPropagation, cells: Tensor, keys: Tensor, boxes: Tensor, key_boxes: Tensor) -> Tensor:
    """The loss of one direction, as the model computes it."""
    prediction, target = F.normalize(module(cells), dim=1), F.normalize(keys, dim=1)
    return consistency_loss(prediction, target, positive_pairs(boxes, key_boxes, tuple(cells.shape[2:])))


def broadcast(module: PixelPropagation, cells: Tensor, keys: Tensor, boxes: Tensor, key_boxes: Tensor) -> Tensor:
    """The same loss with every matrix of cosines as `F.cosine_similarity` of (B, C, N, 1) and (B, C, 1, N)."""
    flat = cells.flatten(2)
    weights = F.cosine_similarity(flat[..., None], flat[:, :, None], dim=1).clamp(min=0) ** module.sharpness
    values = F.normalize(module.transform(cells).flatten(2), dim=1)
    prediction = torch.einsum("bij,bcj->bci", weights, values)
    cosine = F.cosine_similarity(prediction[..., None], keys.flatten(2)[:, :, None], dim=1)
    positives = positive_pairs(boxes, key_boxes, tuple(cells.shape[2:])).to(cosine.dtype)
    return -2 * ((cosine * positives).sum(dim=(1, 2)) / (positives.sum(dim=(1, 2)) + 1e-6)).mean()


VERSIONS: dict[str, Callable[..., Tensor]] = {"ours": ours, "broadcast": broadcast}


def inputs(batch: int, size: int, dim: int, device: torch.device) -> Inputs:
    """A propagation module with random cells, keys and boxes that overlap."""
    generator = torch.Generator().manual_seed(0)
    cells, keys = (torch.randn(batch, dim, size, size, generator=generator).to(device) for _ in range(2))
    corners = [torch.rand(batch, 2, generator=generator) * 0.4 for _ in range(2)]
    boxes, key_boxes = (torch.cat((corner, corner + 0.5), dim=1).to(device) for corner in corners)
    return PixelPropagation(dim).to(device), cells.requires_grad_(), keys, boxes, key_boxes


def one_pass(version: str, given: Inputs) -> None:
    """Forward and backward."""
    VERSIONS[version](*given).backward()


def peak_of_pass(version: str, batch: int, size: int, dim: int, device: torch.device) -> float:
    """GiB that a forward and backward pass adds at its peak, inputs included."""
    one_pass(version, inputs(2, size, dim, device))  # what the libraries allocate once
    return added_peak(lambda: one_pass(version, inputs(batch, size, dim, device)), device)


def seconds_of_pass(version: str, batch: int, size: int, dim: int, device: torch.device, repeats: int) -> float:
    """Median seconds of a forward and backward pass, after one to warm up."""
    given = inputs(batch, size, dim, device)
    return statistics.median([elapsed(lambda: one_pass(version, given), device) for _ in range(repeats + 1)][1:])


def main(argv: list[str] | None = None) -> int:
    """Measure each version in new processes; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--size", type=int, default=7, help="cells a side (%(default)s)")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    print(f"{describe_machine(device)}; batch {args.batch}, {args.size} x {args.size} cells, {args.dim} channels\n")
    print("| version | peak GiB | ms | memory / ours | time / ours |\n|---|---|---|---|---|", flush=True)
    base: tuple[float, float] | None = None
    sizes = args.batch, args.size, args.dim, device
    for version in VERSIONS:
        gib = in_new_process(peak_of_pass, version, *sizes, environment=FREED_AT_ONCE)
        seconds = gib and in_new_process(seconds_of_pass, version, *sizes, args.repeats)
        if not seconds:
            print(f"| {version} | fails at this batch: out of memory? | | | |", flush=True)
            continue
        base = base or (gib, seconds)
        ratios = f"{gib / base[0]:.1f} | {seconds / base[1]:.1f}"
        print(f"| {version} | {gib:.3f} | {seconds * 1e3:.0f} | {ratios} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
