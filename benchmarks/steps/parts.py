"""Parts of our training step timed alone, in milliseconds and as a share of the step.

    python benchmarks/steps/parts.py --arch resnet50 --batch_size 32
    python benchmarks/steps/parts.py --device cuda --arch resnet50 --batch_size 128 --rounds 20

Each round runs a whole step and then each part once; medians over the rounds. The momentum update and LARS as loops
over the tensors stand beside ours.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.measuring.timing import by_turns, describe_machine, elapsed, median_ratio
from benchmarks.steps.contenders import CONTENDERS, Case, make_case
from benchmarks.steps.contenders.case import LR, MOMENTUM, WEIGHT_DECAY
from benchmarks.steps.contenders.official import LARSOneByOne, move_each
from benchmarks.steps.turns import timed_step
from pixpro.method.model import PixPro
from pixpro.method.trunks import ARCHS
from pixpro.training.half_precision import amp_dtype
from pixpro.training.machine import keep_freed_memory
from pixpro.training.optim import make_optimizer

BOTH = "LARS and momentum update together"


def parts(case: Case) -> dict[str, Callable[[], object]]:
    """What a step consists of beside the networks, each as often as in a step; then the two loops."""
    model = PixPro(case.arch, hidden_dim=case.hidden_dim, dim=case.dim)
    model = model.to(case.device, memory_format=torch.channels_last)
    view1, view2 = case.views(torch.channels_last)
    with torch.no_grad(), case.autocast(case.amp_dtype):
        cells = [model.encoder(view.pixels).maps[0] for view in (view1, view2)]
    online = [map_.clone().requires_grad_() for map_ in cells]
    predictions = [map_.float().clone().requires_grad_() for map_ in cells]

    def propagation() -> None:
        with case.autocast(case.amp_dtype):
            mixed = [model.propagation(map_) for map_ in online]
        (mixed[0].sum() + mixed[1].sum()).backward()

    def pairs_and_loss() -> None:
        with case.autocast(case.amp_dtype):
            loss = model.level_loss(tuple(predictions), tuple(cells), (view1.box, view2.box))
        loss.backward()

    lars = make_optimizer("lars", model, lr=LR, momentum=0.9, weight_decay=WEIGHT_DECAY)
    one_by_one = LARSOneByOne(model, LR, WEIGHT_DECAY)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn_like(parameter)

    def both() -> None:
        lars.step()
        model.update_momentum(MOMENTUM)

    return {
        "propagation, both views": propagation,
        "pairs and loss, both directions": pairs_and_loss,
        "momentum update": lambda: model.update_momentum(MOMENTUM),
        "LARS": lars.step,
        BOTH: both,
        "momentum update, one by one": lambda: move_each(model.momentum_encoder, model.encoder, MOMENTUM),
        "LARS, one by one": one_by_one.step,
    }


def table(case: Case, rounds: int) -> str:
    """A row for the step and for each part, as Markdown."""
    contestant = CONTENDERS["ours"].build(case)
    tasks: dict[str, Callable[[], float]] = {"whole step": lambda: timed_step(contestant, case.device)}
    for name, part in parts(case).items():
        tasks[name] = lambda part=part: elapsed(part, case.device)
    seconds = by_turns(tasks, rounds)
    rows = []
    for name, spent in seconds.items():
        times = f"{statistics.median(spent) * 1e3:.2f} ({min(spent) * 1e3:.2f} to {max(spent) * 1e3:.2f})"
        rows.append([name, times, f"{median_ratio(spent, seconds['whole step']):.2%}"])
    return tabulate(rows, ["part", "ms (least to most)", "share of the step"], "github", disable_numparse=True)


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    parser.add_argument("--amp", default="auto", choices=["auto", "off", "bf16", "fp16"])
    parser.add_argument("--arch", default="resnet50", choices=ARCHS, metavar="ARCH")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--hidden_dim", type=int, default=4096)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7, help="that count, after one to warm up (%(default)s)")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    if device.type == "cpu":
        keep_freed_memory()  # as train.py does
    sizes = {name: getattr(args, name) for name in ("batch_size", "image_size", "hidden_dim", "dim")}
    case = make_case(args.arch, **sizes, device=device, amp_dtype=amp_dtype(args.amp, device))
    print(f"{describe_machine(device)}; {args.arch}, batch {args.batch_size}, {args.image_size} px\n")
    print(table(case, args.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
