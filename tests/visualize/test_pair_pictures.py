"""Pictures of pairs show what the loss is given, for any shape of image, and nothing on them is cut off."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from pixpro.data import samples
from pixpro.scenes.drawing import draw_scene
from pixpro.visualize.feature_panels import draw_heat
from pixpro.visualize.figure import DPI, drawn, wrapped
from pixpro.visualize.pair import displayable, make_pair
from pixpro.visualize.pair_panels import draw_source, draw_view, pair_panels, pair_summary, place_colours
from pixpro.visualize.sheet import GAP, Panel, sheet


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "photo.jpg"
    Image.fromarray(draw_scene(0, 14).pixels).save(path, quality=95)
    return path


def alone(draw, *arguments, side: int = 224) -> np.ndarray:
    """The pixels (side, side, 3) of what a function draws on a pair of axes without a rim."""

    def on(figure):
        figure.set_size_inches(side / 100, side / 100)
        draw(figure.add_axes((0, 0, 1, 1), xticks=[], yticks=[], frameon=False), *arguments)

    return np.asarray(drawn(on, dpi=100)).astype(int)


def test_cells_are_drawn_where_the_views_show_them(tmp_path, monkeypatch):
    """In a picture whose colours are coordinates, a view's cell has the colour of the place it is drawn at."""
    monkeypatch.setattr(samples, "draw_colour", lambda rng, role: (-1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0))
    y, x = np.mgrid[:180, :250]
    Image.fromarray(np.stack([x, y, 0 * x], 2).astype(np.uint8)).save(tmp_path / "ramp.png")
    flips = set()
    for seed in range(6):
        made = make_pair(tmp_path / "ramp.png", seed=seed, image_size=128)
        for number in (0, 1):
            pixels = displayable(made.views[number].pixels[0]).astype(float)
            centers = made.centers(number)
            cells = pixels.reshape(4, 32, 4, 32, 3).mean((1, 3)).reshape(16, 3)
            # pixel i spans i to i + 1, so the colour at position p is p - 0.5
            assert np.abs(cells[:, :2] + 0.5 - centers).max() < 0.7
            flips.add(bool(centers[0, 0] > centers[3, 0]))
    assert flips == {True, False}


def test_matched_cells_have_the_colour_of_their_partners_and_others_are_dark(photo):
    matched = next(m for m in (make_pair(photo, seed=s).positives.any(1) for s in range(50)) if 9 < m.sum() < 40)
    colours = np.full((49, 3), 200, np.uint8)
    white = np.full((224, 224, 3), 255, np.uint8)
    picture = alone(draw_view, white, colours, matched)
    middles = picture[16::32, 16::32].reshape(49, 3).mean(1)
    assert np.abs(middles[matched] - (255 + 200) / 2).max() <= 2 and middles[~matched].max() <= 130


def test_place_colours_tell_places_apart():
    places = np.stack(np.meshgrid(np.linspace(0, 1, 7), np.linspace(0, 1, 7)), -1).reshape(-1, 2)
    colours = place_colours(places).astype(float)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=2) + 1e9 * np.eye(49)
    assert distances.min() > 10


def test_heat_grows_brighter_with_the_value():
    values, black = np.arange(49) / 49, np.zeros((224, 224, 3), np.uint8)
    brightness = alone(draw_heat, black, values, {})[16::32, 16::32].reshape(49, 3) @ [0.299, 0.587, 0.114]
    assert (np.diff(brightness) > 0).all()


def test_the_source_shows_both_crops_and_the_lines_between_matched_centres(photo):
    """Where a matched pair of cells lies apart, the picture has the pair's colour half way between them."""
    made = next(m for m in (make_pair(photo, seed=s, image_size=128) for s in range(50)) if 2 < m.positives.sum() < 9)
    made = dataclasses.replace(made, image=np.full_like(made.image, 255))
    colours = (np.full((16, 3), (200, 0, 200), np.uint8),) * 2
    height, width = made.image.shape[:2]
    picture = alone(draw_source, made, colours, 0, side=1000)
    scale = 1000 / max(height, width)
    margin = (1000 - scale * np.array([width, height])) / 2
    for row, column in np.argwhere(made.positives):
        ends = [made.centers(0)[row], made.centers(1)[column]]
        if np.hypot(*(ends[0] - ends[1])) * scale > 40:
            x, y = np.round(sum(ends) / 2 * scale + margin).astype(int)
            assert (np.abs(picture[y - 2 : y + 3, x - 2 : x + 3] - (200, 0, 200)).max(2) < 30).any()
    for edges, rgb in zip(made.edges, ((0xE6, 0x61, 0x00), (0x1A, 0x6E, 0xCC)), strict=True):
        x0, y0, x1, y1 = (edges[0].numpy().reshape(2, 2) * scale + margin).ravel()
        rows, columns = np.nonzero((picture == rgb).all(2))
        assert (columns.min(), columns.max()) == pytest.approx((min(x0, x1), max(x0, x1)), abs=3)
        assert (rows.min(), rows.max()) == pytest.approx((y0, y1), abs=3)


@pytest.mark.parametrize("size", [(900, 60), (60, 900), (1, 1), (7, 5), (3000, 10), (300, 200)])
def test_images_of_any_shape_give_a_readable_sheet(tmp_path, size):
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)).save(path)
    made = make_pair(path, image_size=64)
    picture = sheet([pair_panels(made, 0)], "image.png", pair_summary(made, 0))
    assert picture.width == 8 * DPI and 2 * DPI <= picture.height <= 5 * DPI


def test_long_names_are_broken_not_cut_off():
    name = "W" * 400 + " and the rest of the name"
    picture = sheet([[red(1.0)]], name)
    pixels, margin = np.asarray(picture), round(GAP * DPI) - 2
    assert (pixels[:, -margin:] == pixels[0, 0]).all()  # nothing reaches into the right margin
    assert "".join(wrapped(name, 1.5, 12)).replace(" ", "") == name.replace(" ", "")
    assert picture.height > sheet([[red(1.0)]], "short").height + 100


def red(aspect: float, blue: int = 0) -> Panel:
    """A panel of one colour."""
    pixels = np.full((1, 1, 3), (255, 0, blue), np.uint8)
    return Panel("t", lambda axes: axes.imshow(pixels, extent=(0, aspect, 1, 0)), aspect, "n")


def test_a_sheet_shows_every_panel_whole():
    pixels = np.asarray(sheet([[red(1.5, blue) for blue in (1, 2)]] * 2, "heading", "footer"))
    height = (8 - 3 * GAP) / 3 * DPI  # two of them share the width
    for blue in (1, 2):
        assert (pixels == (255, 0, blue)).all(2).sum() == pytest.approx(2 * 1.5 * height**2, rel=0.02)
    assert (pixels == (0x20, 0x22, 0x28)).all(2).sum() > 200  # the letters


@pytest.mark.parametrize("aspect", [8.0, 1.0, 0.1])
def test_scaling_keeps_the_shape(aspect):
    rows, columns = np.nonzero((np.asarray(sheet([[red(aspect)]])) == (255, 0, 0)).all(2))
    assert np.ptp(columns) / np.ptp(rows) == pytest.approx(aspect, rel=0.05)


def test_pictures_follow_from_the_seed(photo):
    first, again, other = (make_pair(photo, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.views[0].pixels, again.views[0].pixels)
    assert not torch.equal(first.views[0].box, other.views[0].box)


def test_a_pair_has_the_cells_of_the_maps_when_32_does_not_divide_its_side(photo):
    made = make_pair(photo, image_size=80)
    assert made.cells == 3 and made.positives.shape == (9, 9)
