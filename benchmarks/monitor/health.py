"""What the health numbers cost: time of a plain step, of a reported one, and the share at a logging frequency.

python benchmarks/monitor/health.py                    the demo's network on this machine
python benchmarks/monitor/health.py --arch resnet50 --image_size 224 --batch_size 128 --hidden_dim 4096
"""

import argparse
import platform
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from pixpro import PixPro
from pixpro.data.views import View
from pixpro.monitor.health import health, observe
from pixpro.training import distributed
from pixpro.training.optim import LARS, parameter_groups


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Cost of the health numbers.")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--hidden_dim", type=int, default=512)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--log_every", type=int, default=20, help="steps between reports (%(default)s, train.py's)")
    parser.add_argument("--repeats", type=int, default=7, help="pairs of steps, plain and reported in turn")
    return parser


def seconds(model: PixPro, optimizer: LARS, views: tuple[View, View], reported: bool) -> float:
    """Time of one step, with all that a report adds to it."""
    device = views[0].pixels.device
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    with observe(model) if reported else nullcontext() as seen:
        loss = model(*views)
        loss.backward()
        optimizer.step()
        model.update_momentum(0.99)
    if reported:
        distributed.mean_numbers({"loss": loss.detach(), **health(seen, model, optimizer)}, device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main(argv: list[str] | None = None) -> None:
    """Print the medians."""
    args = build_parser().parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = PixPro(args.arch, hidden_dim=args.hidden_dim, dim=args.dim)
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = LARS(parameter_groups(model, 1e-5), 0.01)
    pixels = torch.randn(2, args.batch_size, 3, args.image_size, args.image_size, device=device)
    box = torch.tensor([0.0, 0.0, 1.0, 1.0], device=device).expand(args.batch_size, 4)
    views = tuple(View(each.to(memory_format=torch.channels_last), box) for each in pixels)
    for reported in (False, True):
        seconds(model, optimizer, views, reported)
    pairs = [[seconds(model, optimizer, views, reported) for reported in (False, True)] for _ in range(args.repeats)]
    plain = median(pair[0] for pair in pairs)
    extra = median(pair[1] - pair[0] for pair in pairs)  # of neighbours in time, as machines change their speed
    share = extra / (args.log_every * plain)
    print(
        f"{platform.processor() or platform.machine()}, {device.type}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} thread(s): {args.arch}, {args.batch_size} images of {args.image_size} px\n"
        f"step {1000 * plain:.1f} ms, a report adds {1000 * extra:.1f} ms; "
        f"every {args.log_every} steps that is {share:.2%} of the time"
    )


if __name__ == "__main__":
    main()
