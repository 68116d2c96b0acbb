"""Crops and boxes: drawn as the official code draws them, and true to the pixels that they show."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixpro.data.views import crop_box, crop_pixels, draw_crop
from pixpro.method.geometry import cell_centers, positive_pairs
from tests.helpers import pictures

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "case6_geometry.json").read_text())


def test_the_published_boxes_of_crops_and_flips():
    for row in GOLDEN["table"]:
        crop = row["i"], row["j"], row["h"], row["w"]
        box = torch.tensor(crop_box(crop, row["H"], row["W"], row["hflip"]))
        assert box.tolist() == row["coord"]


def test_the_published_pixels_at_the_corners_of_crops():
    for row in GOLDEN["table"]:
        height, width = row["H"], row["W"]
        rows, columns = np.mgrid[:height, :width]
        ramp = np.stack([columns * 255 // (width - 1), rows * 255 // (height - 1), 0 * rows], axis=2).astype(np.uint8)
        image = torch.from_numpy(ramp).permute(2, 0, 1)
        view = crop_pixels(image, (row["i"], row["j"], row["h"], row["w"]), row["hflip"], 224).numpy().astype(int)
        for name, corner in row["ramp_rgb_corners"].items():
            y, x = (-1 if "bottom" in name else 0), (-1 if "right" in name else 0)
            assert np.abs(view[y, x] - corner).max() <= 1, (row, name)


def test_the_official_sampler_s_draws():
    for row in GOLDEN["get_params_draws"]:
        assert row["ratio"] == [3 / 4, 4 / 3]
        rng = random.Random(row["python_random_seed"])
        for *crop, height, width in row["three_consecutive_draws_i_j_h_w_H_W"]:
            assert list(draw_crop(rng, height, width, tuple(row["scale"]))) == crop
        assert rng.random() == row["next_random_random"]


def test_the_official_sequences_of_crops_and_flips():
    for row in GOLDEN["crop_then_flip_sequences"]:
        rng = random.Random(row["python_random_seed"])
        for expected in row["coords"]:
            crop = draw_crop(rng, row["H"], row["W"], tuple(row["scale"]))
            box = crop_box(crop, row["H"], row["W"], rng.random() < 0.5)
            assert torch.tensor(box).tolist() == expected


def pixel_box(crop, height, width, flip, distance):
    """The crop's box in pixels from edge to edge, (1, 4) float64, whichever units it was asked for in."""
    box = torch.tensor([crop_box(crop, height, width, flip, distance)], dtype=torch.float64)
    if distance == "pixel":
        return box
    # In image units it goes from centre to centre of the outermost pixels: half a pixel more on each side.
    box *= torch.tensor([width - 1, height - 1] * 2)
    half = 0.5 * (box[:, 2:] - box[:, :2]).sign()
    return torch.cat([box[:, :2] - half, box[:, 2:] + half], dim=1)


@pytest.mark.parametrize("distance", ["image", "pixel"])
@pytest.mark.parametrize("flip", [False, True])
def test_a_box_locates_the_pixels_its_view_shows(distance, flip):
    height, width, size = 180, 250, 256  # enlarging, where the filter itself is exact
    image = torch.from_numpy(pictures.coordinates(height, width)).permute(2, 0, 1)
    rng, checked = random.Random(1), 0
    for _ in range(30):
        crop = top, left, h, w = draw_crop(rng, height, width)
        if h < 2 or w < 2:
            continue
        view = crop_pixels(image.float(), crop, flip, size)  # float: 8-bit pixels could not tell 0.05 px
        located = cell_centers(pixel_box(crop, height, width, flip, distance), size)[0]
        x, y = located.unbind(1)
        # Half a pixel along the border shows the border pixel's own centre.
        inside = (x > left) & (x < left + w - 1) & (y > top) & (y < top + h - 1)
        checked += int(inside.sum())
        assert (located - view[:, :, :2].reshape(-1, 2))[inside].abs().max() < 0.05
    assert checked > 1_000_000


@pytest.mark.parametrize("distance", ["image", "pixel"])
@pytest.mark.parametrize("flip", [False, True])
def test_a_box_locates_the_cells_of_a_reduced_view(distance, flip):
    height, width, size, cells = 200, 256, 56, 7
    image = torch.from_numpy(pictures.coordinates(height, width)).permute(2, 0, 1)
    rng = random.Random(2)
    for _ in range(100):
        crop = draw_crop(rng, height, width, (0.3, 1.0))
        view = crop_pixels(image.float(), crop, flip, size)[:, :, :2].double()
        shown = view.view(cells, size // cells, cells, size // cells, 2).mean((1, 3))
        located = cell_centers(pixel_box(crop, height, width, flip, distance), cells).view(cells, cells, 2)
        # The outermost cells see the filter cut off at the crop's border.
        assert (shown - located)[1:-1, 1:-1].abs().max() < 0.05


def test_views_equal_pillow_s_antialiased_bilinear_resize():
    picture = pictures.texture(150, 210)
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    rng = random.Random(3)
    for size in (32, 64, 224):
        top, left, h, w = crop = draw_crop(rng, 150, 210)
        ours = crop_pixels(image, crop, False, size).numpy().astype(int)
        pillow = picture.crop((left, top, left + w, top + h)).resize((size, size), Image.BILINEAR)
        assert np.abs(ours - np.asarray(pillow)).max() <= 1


def test_a_flipped_view_is_the_mirrored_view():
    image = torch.from_numpy(np.array(pictures.texture(40, 50))).permute(2, 0, 1)
    plain, flipped = (crop_pixels(image, (3, 4, 30, 31), flip, 32) for flip in (False, True))
    assert torch.equal(flipped, plain.flip(1))


@pytest.mark.parametrize("distance", ["image", "pixel"])
@pytest.mark.parametrize("height, width", [(1, 1), (1, 7), (7, 1), (2, 2), (1, 3000), (3000, 1), (3, 1000)])
def test_tiny_and_extreme_images_give_finite_boxes_and_pairs(height, width, distance):
    image = torch.from_numpy(pictures.coordinates(height, width)).permute(2, 0, 1)
    rng = random.Random(0)
    for _ in range(20):
        crop = top, left, h, w = draw_crop(rng, height, width)
        assert 0 <= top <= top + h <= height and 0 <= left <= left + w <= width and h > 0 and w > 0
        assert crop_pixels(image, crop, True, 32).shape == (32, 32, 3)
        box = torch.tensor([crop_box(crop, height, width, True, distance)])
        assert box.isfinite().all()
        assert positive_pairs(box, box, 7).dtype == torch.bool


def test_the_diagonal_of_identical_pixel_boxes_is_positive_on_a_one_pixel_image():
    box = torch.tensor([crop_box((0, 0, 1, 1), 1, 1, False, "pixel")])
    assert positive_pairs(box, box, 3)[0].diagonal().all()
