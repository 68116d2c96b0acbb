"""Drawings with matplotlib -> pictures: no display and no state but the figure's, and every text is shown as it is."""

import logging
import textwrap
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pixpro.errors import printable

if TYPE_CHECKING:  # imported where something is drawn: half a second that other commands need not wait
    from matplotlib.figure import Figure

BACKGROUND, INK, FAINT = "#fafaf8", "#202228", "#62656d"
DPI = 200  # a page of 8 inches is 1600 pixels wide, for 800 on a page that is read on a sharp screen
STYLE = {
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": 9,
    "text.color": INK,
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), FAINT),
    **{"axes.spines.right": False, "axes.spines.top": False, "axes.facecolor": "none", "grid.color": "#e2e3e6"},
    **{"axes.titlelocation": "left", "axes.titlesize": 10.5, "figure.facecolor": BACKGROUND},
}


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
