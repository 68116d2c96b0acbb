"""Drawings with matplotlib, curves among them -> pictures: no state but the figure's, every text shown as it is."""

import logging
import textwrap
import warnings
from collections.abc import Callable, Sequence
from itertools import cycle, zip_longest
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from pixpro.errors import printable

if TYPE_CHECKING:  # imported where something is drawn: half a second that other commands need not wait
    from matplotlib.figure import Figure

BACKGROUND, INK, FAINT = "#fafaf8", "#202228", "#62656d"
DPI = 200  # a page of 8 inches is 1600 pixels wide, for 800 on a page that is read on a sharp screen
# Told apart also by colour-blind readers, and dark enough for thin lines on paper (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#785e18", "#56b4e9", "#3c3c3c")
WIDTH, HEIGHT = 4.0, 2.4  # of one panel, in inches
STYLE = {
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": 9,
    "text.color": INK,
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), FAINT),
    **{"axes.spines.right": False, "axes.spines.top": False, "axes.facecolor": "none", "grid.color": "#e2e3e6"},
    **{"axes.titlelocation": "left", "axes.titlesize": 10.5, "figure.facecolor": BACKGROUND},
}

Points = Sequence[tuple[float, float]]


def drawn(draw: Callable[["Figure"], None], dpi: int = DPI) -> Image.Image:
    """What `draw` puts on a figure, whose size in inches it sets, whatever styles this machine is set to."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of caches and fonts
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # what is ignored: a letter that the font lacks becomes a box
    with matplotlib.style.context(["default", STYLE]), warnings.catch_warnings(action="ignore"):
        canvas = FigureCanvasAgg(Figure(dpi=dpi))
        draw(canvas.figure)
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def wrapped(text: str, width: float, size: float) -> list[str]:
    """The text, made printable, in lines of at most `width` inches in letters of `size` points; long words are cut."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    letters, font = max(1, round(180 * width / size)), FontProperties(size=size)
    with warnings.catch_warnings(action="ignore"):
        while True:
            lines = textwrap.wrap(printable(text), letters)
            widths = [text_to_path.get_text_width_height_descent(line, font, False)[0] for line in lines]
            if letters == 1 or max(widths, default=0) <= 72 * width:
                return lines
            letters = max(1, int(0.95 * letters))


class Panel(NamedTuple):
    """One pair of axes; curves holds one list of points for each name of the legend, maybe empty."""

    title: str
    curves: Sequence[Points]


def draw_chart(panels: Sequence[Panel], names: Sequence[str] = (), columns: int = 2) -> Image.Image:
    """All panels row by row, under a legend if there are names; each panel has a curve for each name."""
    columns = min(columns, len(panels))

    def draw(figure: "Figure") -> None:
        # the space: matplotlib leaves out labels that begin with an underscore
        labels = [" " + "\n".join(wrapped(name, columns * WIDTH - 0.8, 9)) for name in names]
        across = max(1, int(columns * WIDTH * 11 / (max(map(len, labels), default=0) + 7)))
        lines = -(-sum(1 + label.count("\n") for label in labels) // across)
        rows = -(-len(panels) // columns)
        figure.set_size_inches(columns * WIDTH, rows * HEIGHT + 0.2 * lines)
        figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.06)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, panel in zip_longest(grid.flat, panels):
            if panel is None or not any(panel.curves):
                axes.set_axis_off()
            if panel is None:
                continue
            axes.set(title=panel.title, xlabel="step")
            axes.grid(axis="y")
            for points, colour in zip(panel.curves, cycle(COLOURS), strict=False):
                axes.plot(*np.reshape(points, (-1, 2)).T, color=colour, marker="o" if len(points) == 1 else None)
            if not any(panel.curves):
                axes.text(0.5, 0.5, "not recorded", color=FAINT, ha="center", transform=axes.transAxes)
        if labels:
            figure.legend(grid[0, 0].lines, labels, loc="outside upper left", ncols=across, frameon=False)

    return drawn(draw)
