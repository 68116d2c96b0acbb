"""Curves of numbers -> a picture: panels with axes and a legend."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from pixpro.visualize.figure import FAINT, drawn, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart also by colour-blind readers, and dark enough for thin lines on paper (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#785e18", "#56b4e9", "#3c3c3c")
WIDTH, HEIGHT = 4.0, 2.4  # of one panel, in inches

Points = Sequence[tuple[float, float]]


class Panel(NamedTuple):
    """One pair of axes; curves holds one list of points for each name of the legend, maybe empty."""

    title: str
    curves: Sequence[Points]
    x_label: str = "step"


def draw_panel(axes: "Axes", panel: Panel) -> None:
    """One pair of axes with its curves."""
    axes.set_title(panel.title)
    if not any(panel.curves):
        axes.text(0.5, 0.5, "not recorded", color=FAINT, ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    axes.set_xlabel(panel.x_label)
    axes.grid(axis="y")
    for number, points in enumerate(panel.curves):
        marker = "o" if len(points) == 1 else None
        axes.plot(*zip(*points, strict=True) if points else ([], []), marker=marker, color=COLOURS[number % 7])


def draw_chart(panels: Sequence[Panel], names: Sequence[str], columns: int = 2) -> Image.Image:
    """All panels row by row under a legend; each panel has a curve for each name. No legend for a single "" name."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)

    def draw(figure: "Figure") -> None:
        labels = [wrapped(name, columns * WIDTH - 0.8, 9) for name in names]
        longest = max((sum(map(len, lines)) for lines in labels), default=0)
        across = max(1, int(columns * WIDTH * 11 / (longest + 7)))
        lines = sum(max(map(len, labels[i : i + across])) for i in range(0, len(labels), across)) if longest else 0
        figure.set_size_inches(columns * WIDTH, rows * HEIGHT + 0.2 * lines)
        figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.06)
        all_axes = figure.subplots(rows, columns, squeeze=False).flat
        for axes in all_axes[len(panels) :]:
            axes.set_axis_off()
        for axes, panel in zip(all_axes, panels, strict=False):
            draw_panel(axes, panel)
        if longest:
            from matplotlib.lines import Line2D

            handles = [Line2D([], [], color=COLOURS[i % 7], linewidth=2.5) for i in range(len(names))]
            # a label that begins with an underscore would be left out
            texts = [" " + "\n".join(lines) for lines in labels]
            figure.legend(handles, texts, loc="outside upper left", ncols=across, frameon=False)

    return drawn(draw)
