"""Curves of numbers -> a picture: panels with axes, ticks and a legend, drawn with Pillow alone."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from pixpro.visualize.drawing import BACKGROUND, FAINT, INK, Colour, font

# Told apart also by colour-blind readers, and dark enough for thin lines on paper (Okabe and Ito).
COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (120, 94, 20), (86, 180, 233), (60, 60, 60))
WIDTH, HEIGHT = 460, 270  # of one panel
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 34, 44  # its margins
SCALE = 2  # drawn larger and reduced, which makes lines smooth
GRID = (226, 227, 230)

Points = Sequence[tuple[float, float]]


class Panel(NamedTuple):
    """One pair of axes; curves holds one list of points for each name of the legend, maybe empty."""

    title: str
    curves: Sequence[Points]
    x_label: str = "step"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers, 1, 2 or 5 times a power of ten apart, from at most low to at least high."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def span(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest of the values, apart even if they are all the same."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-300):
        pad = abs(high) / 10 or 1.0
        return low - pad, high + pad
    return low, high


def label(value: float, step: float) -> str:
    """A tick's number with the digits that its step needs."""
    if value != 0 and (abs(value) >= 1e5 or step < 1e-4):
        return f"{value:.2g}"
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def draw_panel(panel: Panel, colours: Sequence[Colour]) -> Image.Image:
    """One pair of axes with its curves, at SCALE times its size."""
    image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), BACKGROUND)
    draw = ImageDraw.Draw(image)
    left, right, top, bottom = LEFT * SCALE, (WIDTH - RIGHT) * SCALE, TOP * SCALE, (HEIGHT - BOTTOM) * SCALE
    small = font(12 * SCALE)
    draw.text((left, 8 * SCALE), panel.title, INK, font(15 * SCALE))
    draw.text(((left + right) / 2, bottom + 24 * SCALE), panel.x_label, FAINT, small, anchor="ma")
    points = [point for curve in panel.curves for point in curve]
    if not points:
        draw.text(((left + right) / 2, (top + bottom) / 2), "not recorded", FAINT, small, anchor="mm")
        return image
    x_ticks, y_ticks = (ticks(*span(values)) for values in zip(*points, strict=True))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (right - left),
            bottom - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (bottom - top),
        )

    for y in y_ticks:
        _, height = place(x_ticks[0], y)
        draw.line((left, height, right, height), GRID, SCALE)
        text = label(y, y_ticks[1] - y_ticks[0])
        draw.text((left - 6 * SCALE, height), text, FAINT, small, anchor="rm")
    for x in x_ticks:
        across, _ = place(x, y_ticks[0])
        draw.line((across, bottom, across, bottom + 4 * SCALE), FAINT, SCALE)
        text = label(x, x_ticks[1] - x_ticks[0])
        draw.text((across, bottom + 8 * SCALE), text, FAINT, small, anchor="ma")
    draw.line((left, top, left, bottom, right, bottom), FAINT, SCALE)
    for curve, colour in zip(panel.curves, colours, strict=True):
        placed = [place(x, y) for x, y in curve]
        if len(placed) == 1:
            (x, y), size = placed[0], 3 * SCALE
            draw.ellipse((x - size, y - size, x + size, y + size), colour)
        elif placed:
            draw.line(placed, colour, 2 * SCALE, joint="curve")
    return image


def draw_chart(panels: Sequence[Panel], names: Sequence[str], columns: int = 2) -> Image.Image:
    """All panels row by row under a legend; each panel has a curve for each name."""
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(names))]
    columns = min(columns, len(panels))
    width, text = columns * WIDTH * SCALE, font(13 * SCALE)
    legend, x, y = [], LEFT * SCALE, 12 * SCALE
    for name in names:
        length = 34 * SCALE + text.getlength(name)
        if legend and x + length > width - RIGHT * SCALE:
            x, y = LEFT * SCALE, y + 22 * SCALE
        legend.append((x, y))
        x += length + 22 * SCALE
    head = y + 26 * SCALE
    image = Image.new("RGB", (width, head + -(-len(panels) // columns) * HEIGHT * SCALE), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for name, colour, (x, y) in zip(names, colours, legend, strict=True):
        draw.line((x, y + 8 * SCALE, x + 24 * SCALE, y + 8 * SCALE), colour, 3 * SCALE)
        draw.text((x + 32 * SCALE, y + 8 * SCALE), name, INK, text, anchor="lm")
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        image.paste(draw_panel(panel, colours), (column * WIDTH * SCALE, head + row * HEIGHT * SCALE))
    return image.reduce(SCALE)
