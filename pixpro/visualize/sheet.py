"""Panels of pictures in rows, with titles and notes -> one picture."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from pixpro.visualize.figure import DPI, FAINT, INK, drawn, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VIEW_COLOURS = ("#e66100", "#1a6ecc")  # orange and blue: told apart also by colour-blind readers
GAP = 0.18  # inches between panels and around them
TITLE, NOTE = 10.5, 8.5  # points
NARROWEST, WIDEST = 0.6, 2.4  # width of a panel beside its height


class Panel(NamedTuple):
    """A picture with a title above it and a note below it, framed in the title's colour unless that is INK."""

    title: str
    draw: Callable[["Axes"], None]
    aspect: float = 1.0  # width of the picture beside its height
    note: str = ""
    colour: str = INK


class Texts(NamedTuple):
    """What stands above and below a row's panels, in lines."""

    titles: list[list[str]]
    notes: list[list[str]]


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
        head, foot = wrapped(heading, width - 2 * GAP, 12), wrapped(footer, width - 2 * GAP, 9)
        aspects = [[float(np.clip(panel.aspect, NARROWEST, WIDEST)) for panel in row] for row in rows]
        heights = [min(tallest, (width - GAP * (len(row) + 1)) / sum(row)) for row in aspects]
        texts = [
            Texts(
                [wrapped(panel.title, aspect * height, TITLE) for panel, aspect in zip(row, shares, strict=True)],
                [wrapped(panel.note, aspect * height, NOTE) for panel, aspect in zip(row, shares, strict=True)],
            )
            for row, shares, height in zip(rows, aspects, heights, strict=True)
        ]
        above = [lines(TITLE, max(map(len, text.titles))) + 0.03 for text in texts]
        below = [lines(NOTE, max(map(len, text.notes))) + 0.05 for text in texts]
        total = GAP + lines(12, len(head)) + lines(9, len(foot)) + GAP * (1 + bool(foot))
        total += sum(map(sum, zip(above, heights, below, strict=True))) + GAP * len(rows)
        figure.set_size_inches(width, total)

        def write(x: float, y: float, text: list[str], size: float, colour: str = INK) -> None:
            for number, line in enumerate(text):
                figure.text(x / width, 1 - (y + lines(size, number + 0.75)) / total, line, fontsize=size, color=colour)

        write(GAP, GAP, head, 12)
        y = GAP + lines(12, len(head)) + GAP / 2
        for row, shares, height, text, top, bottom in zip(rows, aspects, heights, texts, above, below, strict=True):
            x = GAP
            for panel, aspect, title, note in zip(row, shares, text.titles, text.notes, strict=True):
                write(x, y, title, TITLE, panel.colour)
                write(x, y + top + height + 0.06, note, NOTE, FAINT)
                box = (x / width, 1 - (y + top + height) / total, aspect * height / width, height / total)
                axes = figure.add_axes(box, anchor="NW", xticks=[], yticks=[])
                panel.draw(axes)
                axes.spines[:].set(visible=panel.colour != INK, color=panel.colour, linewidth=2.5)
                x += aspect * height + GAP
            y += top + height + bottom + GAP
        write(GAP, y, foot, 9)

    return drawn(draw, dpi)


def lines(size: float, count: float) -> float:
    """Height in inches of so many lines."""
    return count * 1.3 * size / 72


def outline_cell(axes: "Axes", cell: int, columns: int, colour: str = "white") -> None:
    """A frame around a cell of a grid whose cells are the axes' units, on a dark rim that shows on any ground."""
    from matplotlib.patches import Rectangle

    row, column = divmod(int(cell), columns)
    for edge, width in (("black", 3.4), (colour, 2.0)):
        axes.add_patch(Rectangle((column + 0.05, row + 0.05), 0.9, 0.9, fill=False, edgecolor=edge, linewidth=width))


def show_cells(axes: "Axes", pixels: np.ndarray, colours: np.ndarray, opacity: float, **how: object) -> None:
    """A picture (H, W, 3) under the cells (rows, columns) or (rows, columns, 3) of a grid, the axes' units then."""
    rows, columns = colours.shape[:2]
    place = {"extent": (0, columns, rows, 0)}
    axes.imshow(pixels, cmap="gray", interpolation="bicubic", **place)
    axes.imshow(colours, alpha=opacity, interpolation="nearest", **place, **how)
