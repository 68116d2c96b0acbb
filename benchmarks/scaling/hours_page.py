"""Measured rows -> the tables of docs/hours.md, and their place on the page."""

from collections.abc import Iterable

from tabulate import tabulate

from benchmarks.scaling.imagenet_time import EPOCHS, Machine, arithmetic, cores_to_feed, hours
from pixpro.errors import UserError

SPEEDS = (100, 200, 400, 800, 1600, 3200)  # images/s of a GPU, round numbers to look one's own up by
PUBLISHED = "8 x V100 32 GB, official code, as published"


def machine_of(row: dict) -> Machine | None:
    """What a measured row says about its machine; None where it has not been run."""
    if row["images_per_second"] is None:
        return None
    return Machine(**{name: row[name] for name in Machine._fields if name in row})


def number(value: float) -> str:
    """Three digits of a number, or all before the point of a larger one, in groups."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def hours_table(rows: Iterable[dict]) -> list[str]:
    """Markdown: what was measured, and the hours that follow; "not run" where nothing was."""
    heads = ["hardware", "what", "images/s per device", "efficiency", "images/s in all"]
    heads += [f"{epochs} epochs" for epochs in EPOCHS]
    table = []
    for row in rows:
        what = f"{row['arch']}, {row['image_size']} px, {row['batch']} images per device"
        cells = [row["hardware"], what, *["not run"] * (3 + len(EPOCHS))]
        if machine := machine_of(row):
            cells[2:5] = number(machine.images_per_second), f"{machine.efficiency:.2f}", number(machine.rate)
            cells[5:] = (f"{number(hours(machine.rate, epochs))} h" for epochs in EPOCHS)
        table.append(cells)
    return tabulate(table, heads, "github", disable_numparse=True).splitlines()


def cores_table(data_per_core: float) -> list[str]:
    """Markdown: loader cores that one GPU needs at several speeds."""
    heads = ["images/s of the GPU", f"loader cores at {number(data_per_core)} images/s each"]
    table = [[number(speed), cores_to_feed(speed, data_per_core)] for speed in SPEEDS]
    return tabulate(table, heads, "github", disable_numparse=True).splitlines()


def sections(measured: dict) -> dict[str, list[str]]:
    """The generated parts of the page by name."""
    published = next(row for row in measured["rows"] if row["hardware"] == PUBLISHED)
    return {
        "arithmetic": ["```text", *arithmetic(machine_of(published)), "```"],
        "hours": hours_table(measured["rows"]),
        "cores": cores_table(measured["data"]["images_per_second_per_core"]),
    }


def fill(page: str, parts: dict[str, list[str]]) -> str:
    """The page with its generated parts written anew; UserError where it has no place for one."""
    for name, lines in parts.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        if page.count(begin) != 1 or page.find(end) < page.find(begin):
            raise UserError(f"the page has no place between {begin.strip()} and {end}")
        before, rest = page.split(begin)
        page = before + begin + "".join(f"{line}\n" for line in lines) + rest[rest.index(end) :]
    return page
