"""AP of detect.py on the sample scenes from several trunks and seeds: mean and spread, as a table and as JSON.

    python benchmarks/transfer/detection_scenes.py --trunk untrained=none --trunk demo=output/demo_.../last.pth.tar

Each run is `python downstream/detect.py` with SETTINGS; its folder is left below --output-dir, and a run that is
already finished there is not repeated. The runs follow each other, so that their times mean something.
"""

import argparse
import json
import platform
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from tabulate import tabulate

from benchmarks.evidence.scoring import detected
from downstream.probes.score_table import cell
from pixpro.scenes import sample_scenes

METRICS = ("AP", "AP50", "AP75")
# 300 iterations of 2 images: the published schedule for this batch is 192,000
SETTINGS = (
    "--train-split trainval --test-split test --arch resnet18 --batch-size 2 --train-sizes 160 192 224 --test-size 224 "
    "--regions 8 --test-proposals 50 --precise-bn 20"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trunk", action="append", required=True, metavar="NAME=CHECKPOINT", help="`none`: untrained")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scale", type=float, default=1 / 640, help="length, in published schedules")
    parser.add_argument("--scenes", type=Path, help="folder of scenes; default: the built-in 400")
    parser.add_argument("--output-dir", type=Path, default=Path("output/detection_scenes"))
    args = parser.parse_args()
    scenes = args.scenes or sample_scenes()
    rows = {}
    for trunk in args.trunk:
        name, _, checkpoint = trunk.partition("=")
        rows[name] = [result(args, scenes, name, checkpoint, seed) for seed in args.seeds]
        print(*cells_of(name, rows[name]), sep="  ", flush=True)
    print(table(rows))
    facts = {"machine": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    record = {"settings": SETTINGS, "scale": args.scale, "torch": torch.__version__, **facts, "runs": rows}
    (args.output_dir / "summary.json").write_text(json.dumps(record, indent=1) + "\n")


def result(args: argparse.Namespace, scenes: Path, name: str, checkpoint: str, seed: int) -> dict:
    """Scores, seconds and memory of one run, made unless it is there."""
    folder = args.output_dir / f"{name}_seed{seed}"
    given = ("--data", scenes, "--weights", checkpoint, "--seed", seed, "--scale", args.scale)
    results = detected(folder, *given, *SETTINGS.split())
    facts = {name: results[name] for name in ("seconds", "memory_gib")}
    return {metric: results["scores"][metric] for metric in METRICS} | facts


def cells_of(name: str, runs: list[dict]) -> list[str]:
    """A row of the table: mean and standard deviation over the seeds, in per cent."""
    cells = [cell([run[metric] / 100 for run in runs]) for metric in METRICS]
    seconds, memory = statistics.mean(run["seconds"] for run in runs), max(run["memory_gib"] for run in runs)
    return [name, *cells, f"{seconds / 60:.1f} min", f"{memory:.1f} GiB"]


def table(rows: dict[str, list[dict]]) -> str:
    """All rows as Markdown."""
    count = len(next(iter(rows.values())))
    heads = [f"trunk ({count} seeds)", *METRICS, "time per run", "memory"]
    return tabulate([cells_of(name, runs) for name, runs in rows.items()], heads, "github", disable_numparse=True)


if __name__ == "__main__":
    main()
