"""Pictures of pairs show what the loss is given, for any shape of image, and nothing on them is cut off."""

import numpy as np
import pytest
import torch
from PIL import Image

from pixpro.scenes.drawing import draw_scene
from pixpro.visualize import pair
from pixpro.visualize.drawing import INK, Panel, fit, heat_colours, place_colours, sheet, wrapped
from pixpro.visualize.pair import displayable, make_pair
from pixpro.visualize.pair_panels import pair_panels, pair_summary, view_image


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "photo.jpg"
    Image.fromarray(draw_scene(0, 14).pixels).save(path, quality=95)
    return path


def test_cells_are_drawn_where_the_views_show_them(tmp_path, monkeypatch):
    """In a picture whose colours are coordinates, a view's cell has the colour of the place it is drawn at."""
    monkeypatch.setattr(pair, "draw_colour", lambda rng, role: (-1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0))
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
    picture = np.asarray(view_image(white, colours, matched, side=224)).astype(int)
    middles = picture[16::32, 16::32].reshape(49, 3).mean(1)
    assert np.abs(middles[matched] - (255 + 200) / 2).max() <= 2 and middles[~matched].max() <= 130


def test_place_colours_tell_places_apart():
    places = np.stack(np.meshgrid(np.linspace(0, 1, 7), np.linspace(0, 1, 7)), -1).reshape(-1, 2)
    colours = place_colours(places).astype(float)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=2) + 1e9 * np.eye(49)
    assert distances.min() > 10


def test_heat_grows_brighter_with_the_value():
    brightness = heat_colours(np.linspace(0, 1, 20)).astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(brightness) > 0).all()
    assert (heat_colours(np.array([-0.5])) == heat_colours(np.array([0.0]))).all()


@pytest.mark.parametrize("size", [(900, 60), (60, 900), (1, 1), (7, 5), (3000, 10), (300, 200)])
def test_images_of_any_shape_give_a_readable_sheet(tmp_path, size):
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)).save(path)
    made = make_pair(path, image_size=64)
    panels = pair_panels(made, 0)
    for panel in panels:
        assert panel.image.width <= 800 and panel.image.height <= 360
    picture = sheet([panels], "image.png", pair_summary(made, 0))
    assert 700 <= picture.width <= 1700 and 400 <= picture.height <= 900


def test_long_names_are_broken_not_cut_off():
    name = "a" * 400 + " and the rest of the name"
    picture = sheet([[Panel(Image.new("RGB", (200, 50), (255, 0, 0)), "title", "note")]], name)
    pixels = np.asarray(picture)
    assert (pixels[:, -18:] == pixels[0, 0]).all()  # nothing reaches into the right margin
    assert all(line for line in wrapped(name, 150, 17))


def test_a_sheet_shows_every_panel_whole():
    panels = [[Panel(Image.new("RGB", (60, 40), (255, 0, number)), "t", "n") for number in (1, 2)]] * 2
    pixels = np.asarray(sheet(panels, "heading", "footer"))
    for number in (1, 2):
        assert (pixels == (255, 0, number)).all(2).sum() == 2 * 60 * 40
    assert (pixels == INK).all(2).sum() > 50


def test_scaling_keeps_the_shape():
    assert fit(Image.new("RGB", (1000, 10)), 500, 300).size == (500, 5)
    assert fit(Image.new("RGB", (2, 4)), 500, 300).size == (150, 300)
    assert fit(Image.new("RGB", (5000, 1)), 500, 300).size == (500, 1)


def test_pictures_follow_from_the_seed(photo):
    first, again, other = (make_pair(photo, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.views[0].pixels, again.views[0].pixels)
    assert not torch.equal(first.views[0].box, other.views[0].box)
