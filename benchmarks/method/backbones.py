#!/usr/bin/env python
"""Which backbones of timm give c2 to c5, at which sizes: a table, or the reason.

    python benchmarks/method/backbones.py                      the smallest model of each of timm's families
    python benchmarks/method/backbones.py convnext_tiny pvt_v2_b0

Nothing is computed and no weights are drawn where a model's code allows that: shapes follow from its code alone.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pixpro.method.timm_models import MAPS, TIMM, import_timm
from pixpro.method.trunks import Pyramid, check_arch, map_shapes, sketch
from pixpro.training.pairing import normalises_cells

SIDES = (224, 64, 200)


def families() -> list[str]:
    """One model of each family (a file of timm's code): that with the shortest name, as small ones have."""
    timm = import_timm()
    found: dict[str, list[str]] = {}
    for name in timm.list_models(exclude_filters="test_*"):
        family = timm.models.model_entrypoint(name).__module__
        found.setdefault(family, []).append(name)
    return sorted(min(names, key=lambda name: (len(name), name)) for names in found.values())


def row(name: str) -> str:
    """The row of a model, as Markdown."""
    arch = f"{TIMM}{name}"
    try:
        check_arch(arch)
    except Exception as error:  # a model whose code fails is one that does not work
        return f"| {name} | no: {' '.join(str(error).split()).removeprefix(arch)[:110].strip()} |"
    fits, shapes = [], {}
    for side in SIDES:
        try:
            shapes = map_shapes(arch, side)
        except ValueError:
            continue
        fits.append(str(side))
    if not shapes:
        return f"| {name} | no: it cannot take images of {', '.join(map(str, SIDES))} px, or gives other strides |"
    channels = " ".join(str(shapes[level][0]) for level in MAPS)
    norm = "LayerNorm" if normalises_cells(Pyramid(sketch(arch)).body) else "BatchNorm"
    return f"| {name} | c2 to c5: {channels}; {norm}; of {', '.join(fits)} px |"


def main(argv: list[str] | None = None) -> int:
    """Print the table; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="names of timm's; default: one of each family")
    names = parser.parse_args(argv).models or families()
    print(f"timm {import_timm().__version__}, of {', '.join(map(str, SIDES))} px:\n\n| model | maps |\n|---|---|")
    for name in names:
        print(row(name), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
