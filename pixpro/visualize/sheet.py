"""Panels of pictures in rows, with titles and notes -> one picture."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from pixpro.visualize.figure import DPI, FAINT, INK, drawn, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VIEW_COLOURS = ("#e66100", "#1a6ecc")  # orange and blue: told apart also by colour-blind readers
GAP = 0.18  # inches between panels and around them
NARROWEST, WIDEST = 0.6, 2.4  # width of a panel beside its height


class Panel(NamedTuple):
    """A picture with a title above it and a note below it, framed in the title's colour unless that is INK."""

    title: str
    draw: Callable[["Axes"], Any]
    aspect: float = 1.0  # width of the picture beside its height
    note: str = ""
    colour: str = INK


def sheet(
    rows: Sequence[Sequence[Panel]],
    heading: str = "",
    footer: str = "",
    *,
    width: float = 8.0,
    tallest: float = 2.7,
    dpi: int = DPI,
) -> Image.Image:
    """All panels on one page of `width` inches, rows from top to bottom, none higher than `tallest`."""

    def draw(figure: "Figure") -> None:
        # In inches from the upper left corner, until the height of the page is known.
        texts: list[tuple[float, float, str, float, str]] = []
        boxes: list[tuple[Panel, float, float, float, float]] = []

        def write(text: str, x: float, y: float, room: float, size: float, colour: str = INK) -> float:
            lines, height = wrapped(text, room, size), 1.3 * size / 72
            texts.extend((x, y + (n + 0.75) * height, line, size, colour) for n, line in enumerate(lines))
            return height * len(lines)

        y = GAP + write(heading, GAP, GAP, width - 2 * GAP, 12) + GAP / 2 * bool(heading)
        for row in rows:
            shares = [float(np.clip(panel.aspect, NARROWEST, WIDEST)) for panel in row]
            height = min(tallest, (width - GAP * (len(row) + 1)) / sum(shares))
            widths = [share * height for share in shares]
            lefts = accumulate((room + GAP for room in widths), initial=GAP)
            places = list(zip(row, lefts, widths, strict=False))  # one more left is where the row ends
            y += 0.03 + max(write(panel.title, x, y, room, 10.5, panel.colour) for panel, x, room in places)
            boxes.extend((panel, x, y + height, room, height) for panel, x, room in places)
            y += height + 0.06
            y += GAP + max(write(panel.note, x, y, room, 8.5, FAINT) for panel, x, room in places)
        total = y + write(footer, GAP, y, width - 2 * GAP, 9) + GAP * bool(footer)
        figure.set_size_inches(width, total)
        for x, bottom, line, size, colour in texts:
            figure.text(x / width, 1 - bottom / total, line, fontsize=size, color=colour)
        for panel, x, bottom, room, height in boxes:
            box = (x / width, 1 - bottom / total, room / width, height / total)
            axes = figure.add_axes(box, anchor="NW", xticks=[], yticks=[])
            panel.draw(axes)
            axes.spines[:].set(visible=panel.colour != INK, color=panel.colour, linewidth=2.5)

    return drawn(draw, dpi)


def outline_cell(axes: "Axes", cell: int, columns: int, colour: str = "white") -> None:
    """A frame around a cell of a grid whose cells are the axes' units, on a dark rim that shows on any ground."""
    row, column = divmod(int(cell), columns)
    x, y = np.array([0.05, 0.95, 0.95, 0.05]) + column, np.array([0.05, 0.05, 0.95, 0.95]) + row
    for edge, line in (("black", 3.4), (colour, 2.0)):
        axes.fill(x, y, fill=False, edgecolor=edge, linewidth=line)


def show_cells(axes: "Axes", pixels: np.ndarray, colours: np.ndarray, opacity: float, **how: Any) -> None:
    """A picture (H, W, 3) under the cells (rows, columns) or (rows, columns, 3) of a grid, the axes' units then."""
    extent = (0, colours.shape[1], colours.shape[0], 0)
    axes.imshow(pixels, cmap="gray", interpolation="bicubic", extent=extent)
    axes.imshow(colours, alpha=opacity, interpolation="nearest", extent=extent, **how)
