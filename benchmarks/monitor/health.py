"""What the health numbers cost: time of a plain step, of a reported one, and the share at a logging frequency.

python benchmarks/monitor/health.py                    the demo's network on this machine
python benchmarks/monitor/health.py --arch resnet50 --image_size 224 --batch_size 128 --hidden_dim 4096
"""

import argparse
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.measuring.timing import by_turns, describe_machine, elapsed
from benchmarks.steps.contenders import make_case
from pixpro import PixPro
from pixpro.monitor.health import health, observe
from pixpro.training import distributed
from pixpro.training.optim import LARS, parameter_groups


def main(argv: list[str] | None = None) -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description="Cost of the health numbers.")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--hidden_dim", type=int, default=512)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--log_every", type=int, default=20, help="steps between reports (%(default)s, train.py's)")
    parser.add_argument("--repeats", type=int, default=7, help="pairs of steps, plain and reported in turn")
    args = parser.parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = PixPro(args.arch, hidden_dim=args.hidden_dim, dim=args.dim).to(device, memory_format=torch.channels_last)
    optimizer = LARS(parameter_groups(model, 1e-5), 0.01)
    sizes = {"batch_size": args.batch_size, "image_size": args.image_size}
    views = make_case(args.arch, **sizes, device=device, amp_dtype=None).views(torch.channels_last)

    def step(reported: bool) -> None:
        optimizer.zero_grad(set_to_none=True)
        with observe(model) if reported else nullcontext() as seen:
            loss = model(*views)
            loss.backward()
            optimizer.step()
            model.update_momentum(0.99)
        if reported:
            distributed.mean_numbers({"loss": loss.detach(), **health(seen, model, optimizer)}, device)

    tasks = {kind: partial(elapsed, partial(step, kind == "reported"), device) for kind in ("plain", "reported")}
    seconds = by_turns(tasks, args.repeats)
    plain = median(seconds["plain"])
    # of neighbours in time, as machines change their speed
    extra = median(r - p for p, r in zip(seconds["plain"], seconds["reported"], strict=True))
    share = extra / (args.log_every * plain)
    print(
        f"{describe_machine(device)}: {args.arch}, {args.batch_size} images of {args.image_size} px\n"
        f"step {1000 * plain:.1f} ms, a report adds {1000 * extra:.1f} ms; "
        f"every {args.log_every} steps that is {share:.2%} of the time"
    )


if __name__ == "__main__":
    main()
