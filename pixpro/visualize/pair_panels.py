"""A pair of views -> panels: the image with both crops and their matched cells, and each view with its cells."""

import numpy as np
from PIL import Image, ImageDraw

from pixpro.data.views import View
from pixpro.visualize.drawing import (
    VIEW_COLOURS,
    Panel,
    draw_grid,
    fit,
    framed,
    outline_cell,
    place_colours,
    tint_cells,
)
from pixpro.visualize.pair import Pair, displayable

SIDE = 336  # of a view's panel
WIDEST = 760  # of the image's panel


def shared_colours(centers1: np.ndarray, centers2: np.ndarray, positives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours of the cells of both views, (N, 3) each: nearby places of the image get similar ones."""
    matched = np.concatenate((centers1[positives.any(1)], centers2[positives.any(0)]))
    if len(matched) == 0:
        return np.zeros((len(centers1), 3), np.uint8), np.zeros((len(centers2), 3), np.uint8)
    low, high = matched.min(0), matched.max(0)
    span = np.maximum(high - low, 1e-6)
    return place_colours((centers1 - low) / span), place_colours((centers2 - low) / span)


def view_image(pixels: np.ndarray, colours: np.ndarray, matched: np.ndarray, side: int = SIDE) -> Image.Image:
    """A view with its grid: matched cells tinted, the others darkened. colours (N, 3), matched (N,) bool."""
    cells = round(len(matched) ** 0.5)
    image = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
    grid = np.where(matched[:, None], colours, 0).astype(np.uint8).reshape(cells, cells, 3)
    image = tint_cells(image, grid, np.full((cells, cells), 0.5))
    draw_grid(image, cells, cells)
    return image


def source_image(pair: Pair, colours: tuple[np.ndarray, np.ndarray], cell: int) -> Image.Image:
    """The image with both crops, their cells' centres, and a line between the centres of each matched pair."""
    whole = Image.fromarray(pair.image)
    image = fit(whole, WIDEST, SIDE)
    scale = np.array([image.width / whole.width, image.height / whole.height])
    # drawn at twice the size and scaled down: Pillow's lines have no antialiasing
    canvas = image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas, "RGBA")
    centers = [pair.centers(view) * scale * 2 for view in (0, 1)]
    for view, colour in enumerate(VIEW_COLOURS):
        x0, y0, x1, y1 = (pair.edges[view][0].numpy().reshape(2, 2) * scale * 2).ravel()
        box = (min(x0, x1), y0, max(max(x0, x1) - 1, min(x0, x1)), max(y1 - 1, y0))
        draw.rectangle(box, fill=(*colour, 28))
        draw.rectangle(box, outline=(255, 255, 255, 200), width=9)
        draw.rectangle(box, outline=(*colour, 255), width=6)
    for row, column in np.argwhere(pair.positives):
        draw.line([*centers[0][row], *centers[1][column]], fill=(*colours[0][row].tolist(), 235), width=4)
    for view, colour in enumerate(VIEW_COLOURS):
        for x, y in centers[view]:
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=(*colour, 255), outline=(255, 255, 255, 220))
    x, y = centers[0][cell]
    draw.ellipse((x - 12, y - 12, x + 12, y + 12), outline=(0, 0, 0, 255), width=6)
    draw.ellipse((x - 11, y - 11, x + 11, y + 11), outline=(255, 255, 255, 255), width=4)
    return canvas.resize(image.size, Image.Resampling.LANCZOS)


def view_panels(
    views: tuple[View, View], colours: tuple[np.ndarray, np.ndarray], positives: np.ndarray, cell: int, side: int
) -> list[Panel]:
    """View 1 and view 2, (1, 3, S, S) each, with their cells; `cell` of view 1 and its matches are framed in white."""
    panels = []
    for number, (view, place) in enumerate(zip(views, colours, strict=True)):
        matched = positives.any(1 - number)
        image = view_image(displayable(view.pixels[0]), place, matched, side)
        cells = round(len(matched) ** 0.5)
        for framed_cell in [cell] if number == 0 else np.flatnonzero(positives[cell]):
            outline_cell(image, int(framed_cell), cells, cells, (255, 255, 255))
        flipped = ", flipped" if view.box[0, 0] > view.box[0, 2] else ""
        note = f"{matched.sum()} of {matched.size} cells have a match{flipped}"
        panels.append(Panel(framed(image, VIEW_COLOURS[number]), f"View {number + 1}", note, VIEW_COLOURS[number]))
    return panels


def pair_panels(pair: Pair, cell: int) -> list[Panel]:
    """Three panels: the image, view 1 and view 2; `cell` of view 1 and its matches are framed in white."""
    colours = shared_colours(pair.centers(0), pair.centers(1), pair.positives)
    views = view_panels(pair.views, colours, pair.positives, cell, SIDE)
    height, width, _ = pair.image.shape
    source = Panel(source_image(pair, colours, cell), "Image", f"{width} x {height} pixels; lines join matched cells")
    return [source, *views]


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
