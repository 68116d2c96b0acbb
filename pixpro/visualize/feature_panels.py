"""A pair of views and a network -> panels: similarity of one cell to all others, and dense features as colours."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pixpro.data.augment import MEAN, STD
from pixpro.visualize.dense_features import DenseFeatures
from pixpro.visualize.figure import INK
from pixpro.visualize.pair import Pair, displayable
from pixpro.visualize.sheet import VIEW_COLOURS, Panel, outline_cell, show_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STAGES = {
    "trunk": "trunk",
    "projection": "before propagation",
    "propagated": "after propagation",
}
CYAN = "#00e5ff"


def cosines(cells1: Tensor, cells2: Tensor) -> np.ndarray:
    """Cosine of every cell of a map (1, C, h, w) with every cell of another: (N, N)."""
    units = [F.normalize(cells.float(), dim=1).flatten(2)[0] for cells in (cells1, cells2)]
    return (units[0].T @ units[1]).cpu().numpy()


def shown_range(values: np.ndarray) -> tuple[float, float]:
    """The cosines drawn darkest and brightest: all that occur, but at least a tenth, so that no noise is blown up."""
    return min(float(values.min()), float(values.max()) - 0.1), float(values.max())


def draw_heat(axes: "Axes", pixels: np.ndarray, values: np.ndarray, framed: dict[int, str]) -> None:
    """A view under the cosines (N,) of its cells; framed: colours of the frames of some cells."""
    cells, (low, high) = round(len(values) ** 0.5), shown_range(values)
    show_cells(axes, pixels.mean(axis=2), values.reshape(cells, cells), 0.68, cmap="plasma", vmin=low, vmax=high)
    for cell, colour in framed.items():
        outline_cell(axes, cell, cells, colour)


def scale_note(values: np.ndarray) -> str:
    """What the colours of a heat map mean."""
    low, high = shown_range(values)
    return f"cosine from {low:.2f} (dark) to {high:.2f} (yellow)"


def seen_panel(pixels: np.ndarray, values: np.ndarray, matches: np.ndarray) -> Panel:
    """View 2 under its cosines (N,) with a cell of view 1; that cell's matches (N,) bool are framed in white."""
    cells, nearest = round(len(values) ** 0.5), int(values.argmax())
    framed = {int(match): "white" for match in np.flatnonzero(matches)} | {nearest: CYAN}
    row, column = divmod(nearest, cells)
    verdict = "a match" if matches[nearest] else "not a match" if matches.any() else "there is no match to find"
    note = f"{scale_note(values)}; nearest, in cyan: row {row + 1}, column {column + 1}, {verdict}"
    draw = partial(draw_heat, pixels=pixels, values=values, framed=framed)
    return Panel("View 2, seen from the cell", draw, note=note, colour=VIEW_COLOURS[1])


def similarity_panels(pair: Pair, network: DenseFeatures, cell: int) -> list[Panel]:
    """How like `cell` of view 1 the cells of view 1 are, at each stage, and the cells of view 2 at the last one."""
    stages = [network.stages(view.pixels) for view in pair.views]
    pixels = [displayable(view.pixels[0]) for view in pair.views]
    shown = ["projection", "propagated"] if "propagated" in stages[0] else list(stages[0])[-1:]
    panels = []
    for name in shown:
        values = cosines(stages[0][name], stages[0][name])[cell]
        title = f"View 1, {STAGES[name] if len(shown) > 1 else name}"
        draw = partial(draw_heat, pixels=pixels[0], values=values, framed={cell: "white"})
        panels.append(Panel(title, draw, note=scale_note(values), colour=VIEW_COLOURS[0]))
    # the loss compares propagated cells of one view with projected cells of the other
    values = cosines(stages[0][shown[-1]], stages[1][shown[0]])[cell]
    return [*panels, seen_panel(pixels[1], values, pair.positives[cell])]


def whole_image(image: np.ndarray, shorter: int = 448, longest: int = 1024) -> Tensor:
    """The image (H, W, 3) uint8 normalised for a network: (1, 3, h, w), sides multiples of 32."""
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    height, width = image.shape[:2]
    scale = min(shorter / min(height, width), longest / max(height, width))
    size = [max(2, round(side * scale / 32)) * 32 for side in (height, width)]
    pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def component_colours(maps: list[Tensor]) -> list[np.ndarray]:
    """Maps (1, C, h, w) as colours (h, w, 3) uint8: the first three principal components of all their cells."""
    cells = torch.cat([F.normalize(features.float(), dim=1).flatten(2)[0].T for features in maps]).double()
    cells = cells - cells.mean(0)
    _, values, directions = torch.linalg.svd(cells, full_matrices=False)
    # a fixed sign, and no noise blown up where the features do not differ at all
    directions = directions[:3] * directions[:3].sum(dim=1, keepdim=True).sign()
    projected = (cells @ directions.T).numpy() * (values[:3] > 1e-6 * len(cells) ** 0.5).double().numpy()
    low, high = np.percentile(projected, (2, 98), axis=0)
    colours = np.clip((projected - low) / np.maximum(high - low, 1e-9), 0, 1)
    colours[:, high - low < 1e-9] = 0.5
    if colours.shape[1] < 3:
        colours = np.pad(colours, ((0, 0), (0, 3 - colours.shape[1])), constant_values=0.5)
    parts = np.split((colours * 255).astype(np.uint8), np.cumsum([m.shape[2] * m.shape[3] for m in maps])[:-1])
    return [part.reshape(m.shape[2], m.shape[3], 3) for part, m in zip(parts, maps, strict=True)]


def component_panels(pair: Pair, network: DenseFeatures) -> list[Panel]:
    """The trunk's features of the image and of both views as colours: alike where the network sees the same."""
    inputs = [whole_image(pair.image), *(view.pixels for view in pair.views)]
    image, *views = component_colours([network.stages(pixels)["trunk"] for pixels in inputs])
    height, width = pair.image.shape[:2]
    note = f"{image.shape[1]} x {image.shape[0]} cells of the trunk"
    panels = [colours_panel("Features of the image", image, width / height, note)]
    for number, (colours, frame) in enumerate(zip(views, VIEW_COLOURS, strict=True), start=1):
        panels.append(colours_panel(f"Features of view {number}", colours, 1.0, "same colours as left", frame))
    return panels


def colours_panel(title: str, colours: np.ndarray, aspect: float, note: str = "", frame: str = INK) -> Panel:
    """The colours (h, w, 3) of cells, stretched over what they are the features of."""

    def draw(axes: "Axes") -> None:
        axes.imshow(colours, interpolation="nearest", extent=(0, aspect, 1, 0))

    return Panel(title, draw, aspect, note, frame)
