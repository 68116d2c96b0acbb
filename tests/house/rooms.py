"""The package as a house: rooms on their floors, imports as arrows, lines of code; read from the code itself.

python tests/house/rooms.py                       the lines of each room, and arrows that run up, if there are any
python tests/house/rooms.py --out docs/rooms.png  also as a picture
python tests/house/rooms.py --root DIR            of another checkout
"""

import argparse
import ast
import sys
from collections import Counter
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[2]
# From the ground up. An import goes down, never up: the order is that in which data pass through a run.
FLOORS = (
    "errors",
    "images",
    "data scenes",
    "method",
    "checkpoints",
    "visualize",
    "monitor",
    "training",
    "run",
    "plan",
    "command_line",
    "config",
)
RANK = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}
FACE = ("__init__", "__main__")  # the public API and the commands stand in front of the whole house


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package `pixpro` below a checkout's root, by its dotted name."""
    paths = sorted((root / "pixpro").rglob("*.py"))
    return {".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}


def room(module: str) -> str:
    """The part of a module's name below `pixpro`: its room, or its own name at the top of the package."""
    return (module.split(".") + ["__init__"])[1]


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Every module that a file imports anywhere, `from package import module` resolved."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in full}
    return found


def arrows(root: Path) -> Counter[tuple[str, str]]:
    """(from room, to room) -> number of imports, between different rooms; the face is left out."""
    known = modules(root)
    pairs = (
        (room(module), room(name))
        for module, path in known.items()
        for name in imports(path, known)
        if name.startswith("pixpro.")
    )
    return Counter((a, b) for a, b in pairs if a != b and not {a, b} & set(FACE))


def runs_up(start: str, end: str) -> bool:
    """Whether an import of `end` in `start` does not go down; a room that has no floor stands above all."""
    return RANK.get(start, 99) <= RANK.get(end, 99)


def lines_of_code(root: Path) -> dict[str, int]:
    """Lines of Python by room of the package, and of the programs around it."""
    count = Counter[str]()
    for module, path in modules(root).items():
        count["(top)" if room(module) in FACE else room(module)] += len(path.read_text().splitlines())
    for folder in ("downstream", "benchmarks"):
        count[f"/{folder}"] = sum(len(p.read_text().splitlines()) for p in (root / folder).rglob("*.py"))
    count["/train.py"] = len((root / "train.py").read_text().splitlines())
    return dict(count)


def draw(root: Path, out: Path) -> None:
    """A picture: a row for each floor, a box for each room, an arrow for each pair of rooms; red where one runs up."""
    from matplotlib.figure import Figure

    lines, found = lines_of_code(root), arrows(root)
    figure = Figure(figsize=(9, 9), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    place = {}
    for floor, rooms in enumerate(FLOORS):
        names = rooms.split()
        for i, name in enumerate(names):
            place[name] = (0.5 + (i - (len(names) - 1) / 2) * 0.3, floor)
    for (start, end), number in found.items():
        (x0, y0), (x1, y1) = place[start], place[end]
        bend = 0.09 * (y0 - y1 - 1) * (1 if (y0 + y1) % 2 else -1)
        colour = "#c0392b" if runs_up(start, end) else "#5d7fa3"
        style = {"arrowstyle": "-|>", "connectionstyle": f"arc3,rad={bend:.2f}", "color": colour, "alpha": 0.6}
        style |= {"linewidth": min(3.0, 0.5 + 0.25 * number), "shrinkA": 14, "shrinkB": 14}
        axes.annotate("", xy=(x1, y1), xytext=(x0, y0), arrowprops=style)
    for name, (x, y) in place.items():
        box = {"boxstyle": "round,pad=0.4", "facecolor": "#f4f1ea", "edgecolor": "#444444"}
        axes.text(x, y, f"{name}\n{lines.get(name, 0)} lines", ha="center", va="center", fontsize=11, bbox=box)
    axes.set_xlim(-0.1, 1.1)
    axes.set_ylim(-0.6, len(FLOORS) - 0.4)
    figure.savefig(out, dpi=110)


def main(argv: list[str] | None = None) -> int:
    """Exit code: 1 if an arrow runs up."""
    parser = argparse.ArgumentParser(description="The package as a house: rooms, floors, imports, lines.")
    parser.add_argument("--root", type=Path, default=ROOT, help="a checkout (this one)")
    parser.add_argument("--out", type=Path, help="PNG to write")
    args = parser.parse_args(argv)
    lines, found = lines_of_code(args.root), arrows(args.root)
    up = sorted(pair for pair in found if runs_up(*pair))
    rows = [(lines[name], name) for name in sorted(lines, key=lambda name: RANK.get(name, -1), reverse=True)]
    whole = f"lines in all; {len(RANK)} rooms, {len(found)} arrows, {len(up)} of them run up"
    rows += [(sum(lines.values()), whole), *((None, f"up: {start} -> {end}") for start, end in up)]
    print(tabulate(rows, tablefmt="plain"))
    if args.out:
        draw(args.root, args.out)
    return 1 if up else 0


if __name__ == "__main__":
    sys.exit(main())
