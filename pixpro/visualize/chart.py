"""Curves of numbers -> a picture: panels with axes and a legend."""

from collections.abc import Sequence
from itertools import cycle, zip_longest
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from pixpro.visualize.figure import FAINT, drawn, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Told apart also by colour-blind readers, and dark enough for thin lines on paper (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#785e18", "#56b4e9", "#3c3c3c")
WIDTH, HEIGHT = 4.0, 2.4  # of one panel, in inches

Points = Sequence[tuple[float, float]]


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
