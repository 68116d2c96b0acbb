"""Drawing primitives: labelled panels, grids of cells, heat maps and the sheet that holds them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

BACKGROUND, INK, FAINT = (250, 250, 248), (32, 34, 40), (110, 112, 120)
VIEW_COLOURS = ((230, 97, 0), (26, 110, 204))  # orange and blue: told apart also by colour-blind readers
HUES = np.array([[255, 70, 70], [250, 200, 30], [60, 210, 90], [50, 160, 255], [200, 80, 255]], np.float32)
# dark blue, purple, orange, yellow: brightness rises all the way, so that it also reads in grey
HEAT = np.array([[13, 8, 90], [126, 3, 168], [204, 71, 120], [248, 149, 64], [240, 249, 33]], np.float32)
GAP = 18

Colour = tuple[int, int, int]


class Panel(NamedTuple):
    """A picture with a title above it and a note below it."""

    image: Image.Image
    title: str
    note: str = ""
    colour: Colour = INK


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in typeface, so that no system font is needed."""
    return ImageFont.load_default(size)


def fit(image: Image.Image, width: int, height: int) -> Image.Image:
    """The image scaled to fit into width x height, keeping its shape; small ones are enlarged, at least 1 px stays."""
    scale = min(width / image.width, height / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def place_colours(places: np.ndarray) -> np.ndarray:
    """A colour for each place in the unit square: (N, 2) -> (N, 3) uint8; hue tells x, brightness tells y."""
    x, y = np.clip(places, 0, 1).T
    hues = np.stack([np.interp(x, np.linspace(0, 1, len(HUES)), channel) for channel in HUES.T], -1)
    return (hues * (1.15 - 0.75 * y)[:, None]).clip(0, 255).astype(np.uint8)


def heat_colours(values: np.ndarray) -> np.ndarray:
    """Colours (..., 3) uint8 of values in 0..1, dark for low, yellow for high."""
    position = np.clip(values, 0, 1) * (len(HEAT) - 1)
    return np.stack([np.interp(position, range(len(HEAT)), channel) for channel in HEAT.T], -1).astype(np.uint8)


def tint_cells(image: Image.Image, colours: np.ndarray, opacity: np.ndarray) -> Image.Image:
    """The image with each cell of a grid over it tinted: colours (H, W, 3) uint8, opacity (H, W) in 0..1."""
    tint = Image.fromarray(colours).resize(image.size, Image.Resampling.NEAREST)
    mask = Image.fromarray((opacity * 255).astype(np.uint8)).resize(image.size, Image.Resampling.NEAREST)
    return Image.composite(tint, image, mask)


def draw_grid(image: Image.Image, rows: int, columns: int, colour: Colour = (255, 255, 255)) -> None:
    """Thin lines between the cells of a grid over the whole image."""
    draw = ImageDraw.Draw(image, "RGBA")
    for row in range(1, rows):
        y = round(row * image.height / rows)
        draw.line((0, y, image.width, y), fill=(*colour, 110))
    for column in range(1, columns):
        x = round(column * image.width / columns)
        draw.line((x, 0, x, image.height), fill=(*colour, 110))


def outline_cell(image: Image.Image, cell: int, rows: int, columns: int, colour: Colour, width: int = 3) -> None:
    """A frame around one cell of a grid over the image, on a dark rim that shows on any ground."""
    row, column = divmod(cell, columns)
    box = [column * image.width / columns, row * image.height / rows]
    box += [(column + 1) * image.width / columns - 1, (row + 1) * image.height / rows - 1]
    draw = ImageDraw.Draw(image)
    draw.rectangle(box, outline=(0, 0, 0), width=width + 2)
    draw.rectangle((box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1), outline=colour, width=width)


def framed(image: Image.Image, colour: Colour, width: int = 4) -> Image.Image:
    """The image inside a frame of the given colour."""
    framed = Image.new("RGB", (image.width + 2 * width, image.height + 2 * width), colour)
    framed.paste(image, (width, width))
    return framed


def wrapped(text: str, width: int, size: int) -> list[str]:
    """The text in lines of at most `width` pixels; words longer than a line are cut."""
    lines, measure = [], font(size)
    for word in text.split():
        while measure.getlength(word) > width and len(word) > 2:
            word = word[: max(2, int(len(word) * width / measure.getlength(word)) - 2)] + "…"
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and measure.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def sheet(rows: Sequence[Sequence[Panel]], heading: str, footer: str = "") -> Image.Image:
    """All panels on one page: rows from top to bottom, a heading above and a footer below."""
    title_size, note_size, narrowest = 17, 14, 190
    widths = [[max(panel.image.width, narrowest) for panel in row] for row in rows]
    page = max(sum(row) + GAP * (len(row) + 1) for row in widths)
    head, foot = wrapped(heading, page - 2 * GAP, 22), wrapped(footer, page - 2 * GAP, 15)
    heights = []
    for row, columns in zip(rows, widths, strict=True):
        titles = [wrapped(p.title, w, title_size) for p, w in zip(row, columns, strict=True)]
        notes = [wrapped(p.note, w, note_size) for p, w in zip(row, columns, strict=True)]
        top = 22 * max(map(len, titles)) + 4
        heights.append((titles, notes, top, top + max(p.image.height for p in row) + 18 * max(map(len, notes)) + 8))
    total = GAP + 30 * len(head) + 8 + sum(height + GAP for *_, height in heights) + 20 * len(foot) + GAP
    image = Image.new("RGB", (page, total), BACKGROUND)
    draw = ImageDraw.Draw(image)
    y = GAP
    for line in head:
        draw.text((GAP, y), line, INK, font(22))
        y += 30
    y += 8
    for row, columns, (titles, notes, top, height) in zip(rows, widths, heights, strict=True):
        x = GAP
        for panel, width, title, note in zip(row, columns, titles, notes, strict=True):
            for number, line in enumerate(title):
                draw.text((x, y + 22 * number), line, panel.colour, font(title_size))
            image.paste(panel.image, (x, y + top))
            for number, line in enumerate(note):
                draw.text((x, y + top + panel.image.height + 6 + 18 * number), line, FAINT, font(note_size))
            x += width + GAP
        y += height + GAP
    for number, line in enumerate(foot):
        draw.text((GAP, y + 20 * number), line, INK, font(15))
    return image
