"""One row of JSON per run -> the table of a set of rows, in Markdown."""

import json
from collections.abc import Iterable
from pathlib import Path

from tabulate import tabulate

from downstream.probes.score_table import cell

Row = dict


def read_rows(file: Path) -> list[Row]:
    """The rows of a file of JSON lines, in order; none where there is no file."""
    return [json.loads(line) for line in file.read_text().splitlines() if line.strip()] if file.exists() else []


def write_rows(file: Path, rows: Iterable[Row]) -> None:
    """One line for each row, those of earlier calls for other runs kept."""
    known = {name_of(row): row for row in [*read_rows(file), *rows]}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(known[name]) + "\n" for name in sorted(known)))


def name_of(row: Row) -> tuple:
    """What makes a run another one."""
    return row["scale"], row["arch"], row["trained_on"], row["scored_on"], row["method"], row["seed"]


def table(rows: Iterable[Row]) -> str:
    """A table for each pair of data sets: methods down, scores across, in per cent, with the spread over seeds."""
    parts: dict[tuple, dict[str, list[Row]]] = {}
    for row in rows:
        where = (row["scale"], row["arch"], row["trained_on"], row["scored_on"])
        parts.setdefault(where, {}).setdefault(row["method"], []).append(row)
    return "\n\n".join(part_table(*where, methods) for where, methods in parts.items())


def part_table(scale: str, arch: str, trained_on: str, scored_on: str, methods: dict[str, list[Row]]) -> str:
    """The table of one pair of data sets."""
    names = list(dict.fromkeys(name for rows in methods.values() for row in rows for name in row["scores"]))
    title = f"{scale}, {arch}: trained on {trained_on}, scored on {scored_on}"
    table = []
    for method, rows in methods.items():
        seen = max(row["images_seen"] for row in rows)
        found = [[row["scores"][name] for row in rows if name in row["scores"]] for name in names]
        table.append([f"{method} ({len(rows)})", seen or "", *(cell(values) if values else "" for values in found)])
    heads = ["(seeds)", "images seen", *names]
    return f"{title}\n\n{tabulate(table, heads, 'github', disable_numparse=True)}"
