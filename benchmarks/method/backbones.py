#!/usr/bin/env python
"""Which backbones of timm give c2 to c5, at which sizes: a table, or the reason.

    python benchmarks/method/backbones.py                      the smallest model of each of timm's families
    python benchmarks/method/backbones.py convnext_tiny pvt_v2_b0

Nothing is computed and no weights are drawn where a model's code allows that: shapes follow from its code alone.
"""

import argparse
import sys
from pathlib import Path

from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pixpro.method.timm_models import MAPS, TIMM, import_timm
from pixpro.method.trunks import Pyramid, check_arch, map_shapes, sketch
from pixpro.training.optim import normalises_cells

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
        return f"| {name} | no: {' '.join(str(error).split()).removeprefix(arch)[:110].strip()} | | |"
    fits, shapes, reason = [], {}, ""
    for place, side in enumerate((*SIDES, own_side(name))):
        if place == len(SIDES) and shapes:
            break  # its own side is tried where none of the others fits
        try:
            shapes = map_shapes(arch, side)
        except ValueError as error:
            reason = str(error).removeprefix(f"{arch} ")[:110]
            continue
        fits.append(str(side))
    if not shapes:
        return f"| {name} | no: {reason} | | |"
    channels = " ".join(str(shapes[level][0]) for level in MAPS)
    return f"| {name} | {channels} | {norm(sketch(arch))} | {', '.join(fits)} |"


def own_side(name: str) -> int:
    """The side of the images that a model was made for."""
    return import_timm().get_pretrained_cfg(name, allow_unregistered=True).input_size[-1]


def norm(model: nn.Module) -> str:
    """What kind of norm most of a model's trunk has."""
    body = Pyramid(model).body
    names = [type(part).__name__ for part in body.modules() if list(part.parameters(recurse=False))]
    if not any("Norm" in name and "NormFree" not in name for name in names):
        return "none"
    return "LayerNorm" if normalises_cells(body) else "BatchNorm"


def main(argv: list[str] | None = None) -> int:
    """Print the table; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="names of timm's; default: one of each family")
    names = parser.parse_args(argv).models or families()
    print(f"timm {import_timm().__version__}, of {', '.join(map(str, SIDES))} px, or else of its own size:\n")
    print("| model | channels of c2 to c5 | norm | sides, px |\n|---|---|---|---|")
    for name in names:
        print(row(name), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
