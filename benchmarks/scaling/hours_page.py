"""Images per second of devices and loader -> hours of ImageNet, with the arithmetic, as the tables of docs/hours.md."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from tabulate import tabulate

from pixpro.errors import UserError

IMAGENET = 1_281_167  # training images
EPOCHS = (100, 400)  # of the published weights
SPEEDS = (100, 200, 400, 800, 1600, 3200)  # images/s of a GPU, round numbers to look one's own up by
PUBLISHED = "8 x V100 32 GB, official code, as published"


class Machine(NamedTuple):
    """What limits a run: its devices together, and the cores that prepare the images."""

    images_per_second: float  # of one device
    devices: int = 1
    efficiency: float = 1.0  # speed of several devices over that of one times their number
    data_per_core: float = math.inf  # images/s that a core prepares; infinite where data is in the first number
    cores: int = 1

    @property
    def computed(self) -> float:
        """Images/s of all devices, were the images always there."""
        return self.images_per_second * self.devices * self.efficiency

    @property
    def prepared(self) -> float:
        """Images/s that the loader delivers."""
        return self.data_per_core * self.cores

    @property
    def rate(self) -> float:
        """Images/s of the run: the slower of the two."""
        return min(self.computed, self.prepared)


def hours(images_per_second: float, epochs: int) -> float:
    """Hours of so many epochs of ImageNet."""
    return IMAGENET * epochs / images_per_second / 3600


def cores_to_feed(images_per_second: float, data_per_core: float) -> int:
    """Loader cores that deliver so many images per second; the training process needs one more."""
    return math.ceil(images_per_second / data_per_core)


def arithmetic(machine: Machine) -> list[str]:
    """The calculation, a line per step."""
    speed, devices, efficiency, each, cores = machine
    lines = [
        f"{speed:.4g} images/s per device x {devices} x efficiency {efficiency:.2f} = {machine.computed:.4g} images/s"
    ]
    if machine.prepared < math.inf:
        verdict = "the limit" if machine.prepared < machine.computed else "enough"
        lines.append(
            f"{each:.4g} images/s per core x {cores} cores = {machine.prepared:.4g} images/s of data: {verdict}"
        )
    for epochs in EPOCHS:
        found = f"{hours(machine.rate, epochs):.2f} h"
        lines.append(f"{IMAGENET} images x {epochs} epochs / {machine.rate:.4g} images/s / 3600 = {found}")
    return lines


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
