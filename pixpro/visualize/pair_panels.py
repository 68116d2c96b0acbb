"""A pair of views -> panels: the image with both crops and their matched cells, and each view with its cells."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pixpro.data.views import View
from pixpro.visualize.pair import Pair, displayable
from pixpro.visualize.sheet import VIEW_COLOURS, Panel, outline_cell, show_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def place_colours(places: np.ndarray) -> np.ndarray:
    """A colour for each place in the unit square: (N, 2) -> (N, 3) uint8; hue tells x, brightness tells y."""
    from matplotlib.colors import hsv_to_rgb

    x, y = np.clip(places, 0, 1).T
    return (255 * hsv_to_rgb(np.stack([0.8 * x, 0.8 - 0.15 * y, 1 - 0.6 * y], axis=-1))).astype(np.uint8)


def shared_colours(centers1: np.ndarray, centers2: np.ndarray, positives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours of the cells of both views, (N, 3) each: nearby places of the image get similar ones."""
    matched = np.concatenate((centers1[positives.any(1)], centers2[positives.any(0)]))
    if len(matched) == 0:
        return np.zeros((len(centers1), 3), np.uint8), np.zeros((len(centers2), 3), np.uint8)
    low, high = matched.min(0), matched.max(0)
    span = np.maximum(high - low, 1e-6)
    return place_colours((centers1 - low) / span), place_colours((centers2 - low) / span)


def draw_view(
    axes: "Axes", pixels: np.ndarray, colours: np.ndarray, matched: np.ndarray, framed: Sequence[int] | np.ndarray = ()
) -> None:
    """A view with its grid: matched cells tinted, others darkened, some framed. colours (N, 3), matched (N,) bool."""
    cells = round(len(matched) ** 0.5)
    show_cells(axes, pixels, np.where(matched[:, None], colours, 0).astype(np.uint8).reshape(cells, cells, 3), 0.5)
    inner = np.arange(1, cells)
    axes.vlines(inner, 0, cells, color="white", alpha=0.45, linewidth=0.8)
    axes.hlines(inner, 0, cells, color="white", alpha=0.45, linewidth=0.8)
    for cell in framed:
        outline_cell(axes, cell, cells)


def draw_source(axes: "Axes", pair: Pair, colours: tuple[np.ndarray, np.ndarray], cell: int) -> None:
    """The image with both crops, their cells' centres, and a line between the centres of each matched pair."""
    from matplotlib.collections import LineCollection

    height, width = pair.image.shape[:2]
    axes.imshow(pair.image, interpolation="bicubic", extent=(0, width, height, 0))
    centers = [pair.centers(view) for view in (0, 1)]
    for box, colour in zip(pair.edges, VIEW_COLOURS, strict=True):
        x0, y0, x1, y1 = box[0].tolist()
        for edge, line in (("white", 3.2), (colour, 2.0)):
            axes.fill((x0, x1, x1, x0), (y0, y0, y1, y1), fill=False, edgecolor=edge, linewidth=line)
    pairs = np.argwhere(pair.positives)
    ends = np.stack([centers[0][pairs[:, 0]], centers[1][pairs[:, 1]]], axis=1)
    axes.add_collection(LineCollection(list(ends), colors=colours[0][pairs[:, 0]] / 255, linewidths=1.3), autolim=False)
    for places, colour in zip(centers, VIEW_COLOURS, strict=True):
        axes.scatter(places[:, 0], places[:, 1], s=6, color=colour, edgecolors="white", linewidths=0.4, zorder=3)
    x, y = centers[0][cell]
    for edge, line in (("black", 3.0), ("white", 1.6)):
        axes.scatter(x, y, s=55, facecolors="none", edgecolors=edge, linewidths=line, zorder=4)


def view_panels(
    views: tuple[View, View], colours: tuple[np.ndarray, np.ndarray], positives: np.ndarray, cell: int
) -> list[Panel]:
    """View 1 and view 2, (1, 3, S, S) each, with their cells; `cell` of view 1 and its matches are framed in white."""
    panels = []
    for number, (view, place) in enumerate(zip(views, colours, strict=True)):
        matched = np.asarray(positives.any(1 - number))
        framed = [cell] if number == 0 else np.flatnonzero(positives[cell])
        pixels = displayable(view.pixels[0])
        draw = partial(draw_view, pixels=pixels, colours=place, matched=matched, framed=framed)
        flipped = ", flipped" if view.box[0, 0] > view.box[0, 2] else ""
        note = f"{matched.sum()} of {matched.size} cells have a match{flipped}"
        panels.append(Panel(f"View {number + 1}", draw, note=note, colour=VIEW_COLOURS[number]))
    return panels


def pair_panels(pair: Pair, cell: int) -> list[Panel]:
    """Three panels: the image, view 1 and view 2; `cell` of view 1 and its matches are framed in white."""
    colours = shared_colours(pair.centers(0), pair.centers(1), pair.positives)
    height, width, _ = pair.image.shape
    note = f"{width} x {height} pixels; lines join matched cells"
    source = Panel("Image", partial(draw_source, pair=pair, colours=colours, cell=cell), width / height, note)
    return [source, *view_panels(pair.views, colours, pair.positives, cell)]


def pair_summary(pair: Pair, cell: int) -> str:
    """How many cells match, in words."""
    count, total = int(pair.positives.sum()), pair.positives.size
    if count == 0:
        return f"No cells match: of {total} pairs of cells none shows the same place; such a pair teaches nothing."
    row, column = divmod(cell, pair.cells)
    matches = int(pair.positives[cell].sum())
    return (
        f"{count} of {total} pairs of cells match ({count / total:.1%}). Same colour: same place of the image. "
        f"Framed in white: the cell in row {row + 1}, column {column + 1} of view 1 and its matches ({matches})."
    )
