"""Hours of 100 and 400 epochs of ImageNet, from measured images per second, with the arithmetic.

python benchmarks/hours.py                                          the rows of benchmarks/scaling/measured.json
python benchmarks/hours.py --images_per_second 500 --devices 8 --efficiency 0.95 --data_per_core 431 --cores 32
python benchmarks/hours.py --take FILE      figures of `python benchmarks/train.py --json FILE` go into measured.json
                                            and docs/hours.md
python benchmarks/hours.py --write          writes the tables of docs/hours.md again
"""

import argparse
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.scaling.hours_page import Machine, arithmetic, fill, hours_table, sections
from downstream.common.arguments import positive_float
from pixpro.errors import UserError, one_line_errors

ROOT = Path(__file__).parent.parent
MEASURED, PAGE = ROOT / "benchmarks" / "scaling" / "measured.json", ROOT / "docs" / "hours.md"


def take(measured: dict, result: dict) -> None:
    """Put the rows of benchmarks/train.py's file among the measured ones, in place of those of the same name.

    UserError when it is no such file.
    """
    known = {key(row): row for row in measured["rows"]}
    try:
        about, rows = result["about"], result["rows"]
        one = rows[0]["images_per_second"][0]
        for row in rows:
            ranks, cores, weak, hardware = row["ranks"], row["cores"], row["efficiency"], about["hardware"]
            count = f"{cores} core{'s' * (cores > 1)}, {ranks} rank{'s' * (ranks > 1)}"
            new = {
                "hardware": f"{ranks} x {hardware}" if about["device"] == "GPU" else f"{hardware}, {count}",
                "arch": about["arch"],
                "image_size": about["image_size"],
                "batch": row["batch"],
                "images_per_second": one if weak else row["images_per_second"][0],
                "devices": ranks,
                "efficiency": weak[0] if weak else 1.0,
            }
            known.setdefault(key(new), {}).update(new)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(f"no file of benchmarks/train.py --json ({type(error).__name__}: {error})") from None
    measured["rows"] = list(known.values())


def key(row: dict) -> tuple:
    """What makes a row another one."""
    return tuple(row[name] for name in ("hardware", "arch", "image_size", "batch"))


def read(path: Path) -> dict:
    """A JSON file; UserError when it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error})") from None


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Print or write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images_per_second", type=positive_float, help="of one device; prints the arithmetic for it")
    parser.add_argument("--devices", type=int, choices=range(1, 100_001), default=1, metavar="INT")
    parser.add_argument(
        "--efficiency", type=positive_float, default=1.0, help="of several devices, per device, against one"
    )
    parser.add_argument("--data_per_core", type=positive_float, default=math.inf, help="images/s that a core prepares")
    parser.add_argument(
        "--cores", type=int, choices=range(1, 100_001), default=1, metavar="INT", help="that prepare them"
    )
    parser.add_argument("--take", type=Path, metavar="FILE", help="figures of benchmarks/train.py --json")
    parser.add_argument("--write", action="store_true", help="write the tables of docs/hours.md")
    args = parser.parse_args(argv)
    if args.images_per_second:
        print("\n".join(arithmetic(Machine(*(getattr(args, name) for name in Machine._fields)))))
        return 0
    measured = read(MEASURED)
    if args.take:
        take(measured, read(args.take))
        MEASURED.write_text(json.dumps(measured, indent=1) + "\n")
    if args.take or args.write:
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), sections(measured)), encoding="utf-8")
    print("\n".join(hours_table(measured["rows"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
