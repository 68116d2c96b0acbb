"""The demo with several seeds, and the settings that were tried for it: two tables of docs/evidence.md.

    python benchmarks/evidence/demo_runs.py                  PixPro and PixContrast, three seeds each: half an hour
    python benchmarks/evidence/demo_runs.py --settings       the settings that were tried, one seed: an hour of one core

Runs whose last.pth.tar is in --output-dir are not repeated, only scored; all rows go into benchmarks/results/.
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import train
from benchmarks.evidence.rows import read_rows
from benchmarks.evidence.trunk import small_trunk
from downstream.probes.score_table import cell
from pixpro.checkpoints.checkpoint import LAST, load
from pixpro.config import parse_args, settle
from pixpro.data.held_out import open_pairs
from pixpro.images import open_images
from pixpro.method.encoder import Encoder
from pixpro.monitor import compare
from pixpro.monitor.matching import encoder_matching
from pixpro.monitor.semantics import MaskedImages, encoder_semantics, open_masks
from pixpro.scenes import sample_scenes

RESULTS = Path(__file__).resolve().parents[1] / "results"
# Of the seeds' table: runs, when they are scored, title.
SHOWN = (
    ("pixpro", "trained", "PixPro"),
    ("pixcontrast", "trained", "PixContrast"),
    ("pixpro", "untrained", "untrained"),
)
SCORES = {"matching": "dense matching", "cells named": "cells named"}
FIVE, STAGE, FPN = "five convolutions", "--neck stage --levels 3", "--neck fpn --levels 3"
NO_INSTANCE = "--instance_weight 0"
ADAMW = "--optimizer adamw --weight_decay 0.05"
Runs = dict[str, tuple[str, str, str]]
SEEDS: Runs = {f"{m}-{seed}": (STAGE, m, f"--seed {seed}") for m in ("pixpro", "pixcontrast") for seed in range(3)}
# number -> (trunk, method, flags beside the demo's own)
SETTINGS: Runs = {
    "01": (FPN, "pixpro", f"--batch_size 32 --epochs 2 {NO_INSTANCE}"),
    "02": (FPN, "pixpro", f"--batch_size 32 --epochs 8 {NO_INSTANCE}"),
    "03": (FPN, "pixpro", f"--lr_base 16 --epochs 8 {NO_INSTANCE}"),
    "04": (STAGE, "pixpro", f"--sharpness 8 --epochs 25 {NO_INSTANCE}"),
    "05": (STAGE, "pixpro", "--epochs 16"),
    "06": (FIVE, "pixpro", f"--batch_size 32 --epochs 24 {NO_INSTANCE}"),
    "07": (FIVE, "pixpro", f"--batch_size 32 --lr_base 2 --epochs 16 {NO_INSTANCE}"),
    "08": (FIVE, "pixpro", f"--batch_size 32 --sharpness 8 --epochs 16 {NO_INSTANCE}"),
    "09": (FIVE, "pixpro", f"--batch_size 32 --momentum_base 0.999 --epochs 16 {NO_INSTANCE}"),
    "10": (FIVE, "pixpro", f"--epochs 50 {NO_INSTANCE}"),
    "11": (FIVE, "pixpro", f"{ADAMW} --lr_base 0.008 --batch_size 32 --epochs 16 {NO_INSTANCE}"),
    "12": (FIVE, "pixpro", f"{ADAMW} --lr_base 0.016 --momentum_base 0.998 --epochs 16 {NO_INSTANCE}"),
    "13": (FIVE, "pixpro", "--epochs 16"),
    "14": (FIVE, "pixcontrast", "--epochs 25"),
}


def command(run: tuple[str, str, str], output: Path) -> list[str]:
    """The arguments of train.py."""
    trunk, method, flags = run
    neck = "--neck none" if trunk == FIVE else trunk
    return f"--demo --loss {method} {neck} {flags} --output_dir {output}".split()


def scores(encoder: Encoder, size: int, masks: tuple[MaskedImages, MaskedImages], held_out: str) -> dict[str, float]:
    """What the demo prints at its end."""
    pairs = open_pairs(open_images([held_out]), [held_out], size, "image")
    named = encoder_semantics(encoder, *masks).accuracy
    return {"matching": encoder_matching(encoder, pairs)["trunk"].accuracy, "cells named": named}


def row_of(
    run: tuple[str, str, str], output: Path, masks: tuple[MaskedImages, MaskedImages], untrained: dict[tuple, dict]
) -> dict:
    """Train unless the checkpoint is there, and score beside the untrained network.

    untrained: scores of untrained networks by trunk and seed, to which this one's are added.
    """
    arguments = command(run, output)
    config = settle(parse_args(arguments))
    with small_trunk() if run[0] == FIVE else contextlib.nullcontext():
        if not (output / LAST).exists() and train.main(arguments):
            raise SystemExit(f"{output.name}: train.py failed")
        model = train.build_model(config)
        start = (run[0], config.seed)
        if start not in untrained:
            untrained[start] = scores(model.encoder, config.image_size, masks, config.val_data[0])
        model.load_state_dict(load(output / LAST)["model"])
        after = scores(model.encoder, config.image_size, masks, config.val_data[0])
    ranks = [row["target_rank"] for row in compare.read_rows(output) if "target_rank" in row]
    steps = 320 // config.batch_size * config.epochs
    facts = {"steps": steps, "images": steps * config.batch_size, "lowest_rank": min(ranks), "last_rank": ranks[-1]}
    flags = " ".join(arguments[: arguments.index("--output_dir")])
    return {"trunk": run[0], "arguments": flags, **facts, "untrained": untrained[start], "trained": after}


def seeds_table(rows: dict[str, dict]) -> str:
    """A row for each method and for the untrained networks, mean and spread over the seeds in per cent, in Markdown."""
    table = []
    for method, when, title in SHOWN:
        runs = [row for name, row in rows.items() if name.startswith(f"{method}-")]
        cells = [cell([row[when][name] for row in runs]) for name in SCORES]
        ranks = ", ".join(f"{row['lowest_rank']:.1f}" for row in runs) if when == "trained" else ""
        table.append([f"{title} ({len(runs)})", *cells, ranks])
    return tabulate(table, ["(seeds)", *SCORES.values(), "lowest rank"], "github", disable_numparse=True)


def settings_table(rows: dict[str, dict]) -> str:
    """A row for each setting, in Markdown; scores in per cent, the untrained network's in brackets."""
    table = []
    for number, row in rows.items():
        trunk, method, flags = SETTINGS[number]
        shown = "five convolutions" if trunk == FIVE else f"ResNet-18, `{trunk}`"
        found = [f"{100 * row['trained'][name]:.1f} ({100 * row['untrained'][name]:.1f})" for name in SCORES]
        what = f"`{flags}`" if method == "pixpro" else f"PixContrast, `{flags}`"
        table.append([number, shown, what, row["steps"], f"{row['lowest_rank']:.1f}", *found])
    heads = ["", "trunk", "flags beside the demo's", "steps", "lowest rank", *SCORES.values()]
    return tabulate(table, heads, "github", disable_numparse=True)


def main(argv: list[str] | None = None) -> None:
    """Train and score what has no row yet, print the table."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--settings", action="store_true", help="the settings that were tried, in place of the demo")
    parser.add_argument("--output-dir", type=Path, help="default: output/demo-seeds or output/demo-settings")
    args = parser.parse_args(argv)
    runs, title = (SETTINGS, "demo-settings") if args.settings else (SEEDS, "demo-seeds")
    file, folder = RESULTS / f"{title}.jsonl", args.output_dir or Path("output", title)
    rows = {row["name"]: row for row in read_rows(file)}
    missing, untrained = [name for name in runs if name not in rows], {}
    masks = open_masks(sample_scenes(), 64) if missing else None
    file.parent.mkdir(parents=True, exist_ok=True)
    for name in missing:
        rows[name] = {"name": name, **row_of(runs[name], folder / name, masks, untrained)}
        file.write_text("".join(json.dumps(rows[name]) + "\n" for name in runs if name in rows))
        print(rows[name], flush=True)
    print((settings_table if args.settings else seeds_table)({name: rows[name] for name in runs if name in rows}))


if __name__ == "__main__":
    main()
