"""Does it learn? Pre-trains and scores, beside an untrained network, in one command that goes on where it stopped.

    python benchmarks/learning.py --data camvid.tar --seeds 3                      masks: dense probes, fine-tuned FCN
    python benchmarks/learning.py --data caltech101.tar --score-on camvid.tar      class folders, and transfer to masks
    python benchmarks/learning.py --data caltech101.tar --scale gpu                at most 9 minutes a run on one H100
    python benchmarks/learning.py --table                                          the table of all rows, nothing is run

--data is a tar file (or a folder) with train/CLASS/* and test/CLASS/*, or in VOC's layout with masks or boxes; the
photographs are not part of this repository. A run is a method and a seed: its checkpoint, its log and row.json stay in
--output-dir, and a run that has its row is not repeated. All rows go into --rows, one line each.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


from benchmarks.evidence.data import Photographs, open_photographs
from benchmarks.evidence.pretrain import METHODS, SCALES, Scale, pretrain
from benchmarks.evidence.rows import Row, read_rows, table, write_rows
from benchmarks.evidence.scoring import scores_of
from benchmarks.measuring.timing import machine
from pixpro.errors import UserError, one_line_errors

RESULTS = Path(__file__).resolve().parent / "results"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form, allow_abbrev=False)
    parser.add_argument("--data", type=Path, help="tar file or folder of photographs to train on and to score with")
    parser.add_argument("--score-on", type=Path, nargs="*", default=[], help="further ones to score with")
    parser.add_argument("--scale", choices=SCALES, default="cpu", help="sizes of a run (%(default)s)")
    parser.add_argument("--arch", help="another backbone than the scale's, on gpu: resnet18, resnet50")
    parser.add_argument("--images", type=int, help="images seen in a run, other than the scale's")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["untrained", "PixPro", "PixContrast"])
    parser.add_argument("--seeds", type=int, default=1, help="runs of each method (%(default)s)")
    parser.add_argument("--no-fine-tuning", action="store_true", help="frozen scores alone")
    parser.add_argument("--output-dir", type=Path, default=Path("output/learning"))
    parser.add_argument("--rows", type=Path, help="file of rows; default: benchmarks/results/learning-SCALE.jsonl")
    parser.add_argument("--table", action="store_true", help="print the table of the rows, and stop")
    return parser


def settings(args: argparse.Namespace) -> Scale:
    """The scale, with what the command line changes; UserError when it makes no sense."""
    changes = {name: getattr(args, name) for name in ("arch", "images") if getattr(args, name)}
    if args.arch and args.scale == "cpu":
        raise UserError(f"--arch {args.arch}: the cpu scale has five convolutions; add --scale gpu")
    if args.seeds < 1 or (args.images or 1) < 1:
        raise UserError("--seeds and --images: expected 1 or more")
    scale = SCALES[args.scale]
    return Scale(**(vars(scale) | changes))


def run(args: argparse.Namespace, scale: Scale, data: Photographs, others: list[Photographs]) -> list[Row]:
    """Train and score every method and seed that has no rows yet, seeds first; returns all rows."""
    rows: list[Row] = []
    for seed in range(args.seeds):
        for method in args.methods:
            name = method.replace(" + ", "-").replace(" ", "-")
            folder = args.output_dir / f"{args.scale}-{scale.arch.replace(' ', '-')}-{data.name}-{name}-seed{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            for place in [data, *others]:
                file = folder / f"row-{place.name}.json"
                if not file.exists():
                    checkpoint, facts = pretrain(scale, method, data, seed, folder)
                    started = time.perf_counter()
                    fine_tune = not args.no_fine_tuning
                    scores = scores_of(scale, checkpoint, place, seed=seed, folder=folder, fine_tune=fine_tune)
                    facts |= {"scoring_seconds": round(time.perf_counter() - started), **machine()}
                    where = {"trained_on": data.name, "scored_on": place.name}
                    row = {"scale": args.scale, "arch": scale.arch, **where, "method": method, "seed": seed}
                    file.write_text(json.dumps(row | {"scores": scores, **facts}) + "\n")
                rows.append(json.loads(file.read_text()))
                print(f"{method}, seed {seed}, on {place.name}: {rows[-1]['scores']}", flush=True)
                write_rows(args.rows, rows)
    return rows


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Exit status of the command."""
    args = build_parser().parse_args(argv)
    args.rows = args.rows or RESULTS / f"learning-{args.scale}.jsonl"
    scale = settings(args)
    if args.table:
        if not args.rows.is_file():
            raise UserError(f"{args.rows}: no such file of rows; leave --table out, and it is made")
        print(table(read_rows(args.rows)))
        return 0
    if args.data is None:
        raise UserError("--data: expected a tar file or a folder of photographs, such as caltech101.tar")
    place = args.output_dir / "data"
    data, *others = [open_photographs(given, place) for given in (args.data, *args.score_on)]
    print(table(run(args, scale, data, others)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
