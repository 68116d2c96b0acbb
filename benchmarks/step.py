"""Our training step beside other implementations and beside the floor, on the same batch in one run.

    python benchmarks/step.py --archs resnet18 resnet50 --batch_sizes 16 --image_sizes 224
    python benchmarks/step.py --device cuda --batch_sizes 128 --largest --profile --peak_tflops 312

The contenders take turns, one step each per round, so that a machine that is busy for a while disturbs all; on a CPU
each has a process of its own, which keeps freed memory as train.py does or leaves that as the C library has it, and the
second of two steps counts. An image is both of its views. The floors are the passes that nobody can leave out, through
the trunk alone and through trunk and projector, without optimizer. Peak memory is that of building a contender and of
two steps, alone. Colours and the input pipeline are not in the step: see data.py. Those that are not installed are said
to be; they need `pip install pixel-level-contrastive-learning lightly`.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.measuring.timing import describe_machine
from benchmarks.steps.contenders import CONTENDERS, make_case
from benchmarks.steps.limits import largest_batches, profile_lines
from benchmarks.steps.rounds import measure, table, with_peaks
from benchmarks.steps.turns import Apart, Here
from pixpro.method.trunks import ARCHS
from pixpro.training.half_precision import amp_dtype

VARIANTS = ("apart", "together", "compiled_together", "compiled_graphs")  # of ours, measured when they are named


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    parser.add_argument("--amp", default="auto", choices=["auto", "off", "bf16", "fp16"], help="of our step, as there")
    parser.add_argument("--archs", nargs="+", default=["resnet18"], choices=ARCHS, metavar="ARCH")
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=[16], metavar="B")
    parser.add_argument("--image_sizes", nargs="+", type=int, default=[224], metavar="S")
    parser.add_argument("--hidden_dim", type=int, default=4096)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7, help="that count, after one to warm up (%(default)s)")
    usual = [name for name in CONTENDERS if name not in VARIANTS]
    parser.add_argument("--only", nargs="+", default=usual, choices=CONTENDERS, metavar="NAME")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="also our step of that checkout (CPU)")
    parser.add_argument("--largest", action="store_true", help="also the largest batch that fits (CUDA)")
    parser.add_argument("--profile", action="store_true", help="also our ten longest kernels, and FLOP/s")
    parser.add_argument("--peak_tflops", type=float, help="of the device in the step's precision, for --profile")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Print a table per network, batch and image size."""
    parser = build_parser()
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    if args.largest and device.type != "cuda":
        parser.error("--largest needs --device cuda: what fits into a CPU's memory is not told by its allocator")
    if args.before and device.type == "cuda":
        parser.error("--before needs --device cpu: there each contender has a process, and memory, of its own")
    dtype = amp_dtype(args.amp, device)
    torch.backends.cudnn.benchmark = True  # as the official code has it
    case_of = partial(make_case, hidden_dim=args.hidden_dim, dim=args.dim, device=device, amp_dtype=dtype)
    precision = "float32" if dtype is None else str(dtype).removeprefix("torch.")
    print(f"{describe_machine(device)}; our precision {precision}; {args.rounds} rounds")
    everything = []
    for arch in args.archs:
        for size in args.image_sizes:
            for batch in args.batch_sizes:
                case = case_of(arch, batch_size=batch, image_size=size)
                kind = Here if device.type == "cuda" else Apart
                rows = with_peaks(measure(case, args.only, args.rounds, kind, args.before), case)
                print(f"\n{arch}, batch {batch}, {size} px:\n\n{table(rows)}", flush=True)
                everything += [{"arch": arch, "batch": batch, "image_size": size, **row} for row in rows]
                if args.profile:
                    print("\n" + "\n".join(profile_lines(case, args.rounds, args.peak_tflops)), flush=True)
            if args.largest:
                told = largest_batches(args.only, partial(case_of, arch, image_size=size), args.rounds)
                print(f"\n{arch}, {size} px:\n\n{told}", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"machine": describe_machine(device), "rows": everything}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
