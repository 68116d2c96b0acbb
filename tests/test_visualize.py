"""Pictures of pairs: they show what the loss is given, for any shape of image, and survive any name and file."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from pixpro import PixContrast, PixPro
from pixpro.errors import UserError
from pixpro.scenes.drawing import draw_scene
from pixpro.visualize import pair
from pixpro.visualize.command import main
from pixpro.visualize.dense_features import load_dense_features
from pixpro.visualize.drawing import INK, Panel, fit, heat_colours, place_colours, sheet, wrapped
from pixpro.visualize.feature_panels import (
    component_colours,
    cosines,
    shown_range,
    similarity_panels,
    whole_image,
)
from pixpro.visualize.html_page import Section, html_page
from pixpro.visualize.pair import displayable, make_pair
from pixpro.visualize.pair_panels import pair_panels, pair_summary, view_image


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "photo.jpg"
    Image.fromarray(draw_scene(0, 14).pixels).save(path, quality=95)
    return path


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    models = {
        "pixpro": PixPro("resnet18", hidden_dim=16, dim=8, sharpness=3.0),
        "two_layers": PixPro("resnet18", hidden_dim=16, dim=8, num_layers=2),
        "no_layers": PixPro("resnet18", hidden_dim=16, dim=8, num_layers=0),
        "pixcontrast": PixContrast("resnet18", hidden_dim=16, dim=8),
    }
    for name, model in models.items():
        model.encoder.bn1.running_mean += 0.3  # so that evaluation mode differs from training mode
        method = "pixcontrast" if name == "pixcontrast" else "pixpro"
        config = {"loss": method, "sharpness": 3.0 if name == "pixpro" else 2.0}
        torch.save({"model": model.state_dict(), "epoch": 7, "config": config}, folder / f"{name}.pth")
    trunk = torchvision.models.resnet18()
    torch.save(trunk.state_dict(), folder / "torchvision.pth")
    return folder, models | {"torchvision": trunk}


STAGE = {"pixcontrast": "projection", "torchvision": "trunk"}


def run(*arguments):
    return main(["pairs", *map(str, arguments)])


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


@pytest.mark.parametrize("name", ["pixpro", "two_layers", "no_layers", "pixcontrast", "torchvision"])
def test_features_of_a_checkpoint_are_those_of_the_model(checkpoints, name):
    folder, models = checkpoints
    network, model = load_dense_features(folder / f"{name}.pth"), models[name].eval()
    images = torch.randn(2, 3, 64, 96)
    stages = network.stages(images)
    with torch.no_grad():
        if name == "torchvision":
            expected = {"trunk": torch.nn.Sequential(*list(model.children())[:-2])(images)}
        else:
            expected = {"trunk": model.encoder.features(images)["c5"], "projection": model.encoder(images).maps[0]}
            if name != "pixcontrast":
                expected["propagated"] = model.propagation(expected["projection"])
    assert list(stages) == list(expected)
    for stage, features in expected.items():
        torch.testing.assert_close(stages[stage], features)
    assert "resnet18" in network.label and ("epoch 7" in network.label) == (name != "torchvision")


def test_heads_that_do_not_fit_are_one_clear_error(checkpoints, tmp_path):
    contents = torch.load(checkpoints[0] / "pixpro.pth")
    contents["model"]["propagation.transform.weight"] = torch.zeros(8, 5, 1, 1)
    torch.save(contents, tmp_path / "odd.pth")
    with pytest.raises(UserError, match="do not fit together"):
        load_dense_features(tmp_path / "odd.pth")


def test_cosines_equal_loops():
    first, second = torch.randn(1, 5, 2, 3), torch.randn(1, 5, 2, 3)
    values = cosines(first, second)
    for i in range(6):
        for j in range(6):
            a, b = first[0, :, i // 3, i % 3].numpy(), second[0, :, j // 3, j % 3].numpy()
            assert values[i, j] == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), abs=1e-5)


def test_heat_maps_show_what_occurs_but_do_not_blow_up_noise():
    assert shown_range(np.array([-0.25, 0.5, 1.0])) == (-0.25, 1.0)
    assert shown_range(np.array([0.999, 1.0])) == pytest.approx((0.9, 1.0))


def test_like_cells_get_like_colours_and_features_without_content_grey():
    kinds = torch.randn(4, 16)
    first, second = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([3, 2, 1, 0])
    maps = [kinds[first].T.reshape(1, 16, 2, 3), 5 * kinds[second].T.reshape(1, 16, 2, 2)]
    colours = component_colours(maps)
    assert colours[0].shape == (2, 3, 3) and colours[1].shape == (2, 2, 3)
    flat = [colour.reshape(-1, 3).astype(int) for colour in colours]
    for i, kind in enumerate(first):
        for j, other in enumerate(second):
            far = np.abs(flat[0][i] - flat[1][j]).max()
            assert far <= 1 if kind == other else far > 40
    (grey,) = component_colours([torch.ones(1, 16, 3, 3)])
    assert np.ptp(grey) == 0
    (few,) = component_colours([torch.randn(1, 2, 3, 3)])
    assert few.shape == (3, 3, 3)


@pytest.mark.parametrize("shape", [(100, 2000), (2000, 100), (3, 3), (375, 500)])
def test_whole_images_are_fed_in_sizes_that_the_network_takes(shape):
    pixels = whole_image(np.zeros((*shape, 3), np.uint8))
    assert all(side % 32 == 0 and 64 <= side <= 1024 for side in pixels.shape[2:])


def test_the_command_writes_a_picture_for_each_image(photo, checkpoints, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    assert run(photo, "--checkpoint", checkpoints[0] / "pixpro.pth", "--out", out, "--image-size", 64) == 0
    with Image.open(out / "01-photo.png") as picture:
        assert picture.height > 1000
    assert run(photo, photo, "--out", out / "two", "--image_size", 64, "--cell", "2,1") == 0
    assert sorted(path.name for path in (out / "two").iterdir()) == ["01-photo.png", "02-photo.png"]
    assert (out / "two" / "01-photo.png").read_bytes() == (out / "two" / "02-photo.png").read_bytes()
    assert capsys.readouterr().out.count("wrote ") == 3


@pytest.mark.parametrize("name", ["pixcontrast", "torchvision"])
def test_checkpoints_without_propagation_are_drawn_too(photo, checkpoints, name):
    panels = similarity_panels(make_pair(photo, image_size=64), load_dense_features(checkpoints[0] / f"{name}.pth"), 0)
    assert [panel.title for panel in panels] == [f"View 1, {STAGE[name]}", "View 2, seen from the cell"]


def test_pictures_follow_from_the_seed(photo):
    first, again, other = (make_pair(photo, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.views[0].pixels, again.views[0].pixels)
    assert not torch.equal(first.views[0].box, other.views[0].box)


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.images, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.images += [dict(attrs)["src"]] if tag == "img" else []

    def handle_data(self, data):
        self.text += data


def test_the_page_holds_everything_and_names_cannot_add_markup(tmp_path, photo):
    name = "<script>alert(1)<script>&amp; \"x\" 'y'.jpg"
    (tmp_path / name).write_bytes(photo.read_bytes())
    assert run(tmp_path / name, photo, "--html", "--out", tmp_path / "out", "--image_size", 64) == 0
    text = (tmp_path / "out" / "pairs.html").read_text()
    page = Page(text)
    assert "script" not in page.tags and page.text.count(name) == 2
    assert len(page.images) == 2 and "http" not in text
    for source in page.images:
        kind, content = source.split(",", 1)
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            assert picture.width > 700
    assert all("<" not in path.name for path in (tmp_path / "out").iterdir())


def test_names_that_are_not_unicode_do_not_stop_the_page():
    section = Section("bad \udcff name", Image.new("RGB", (4, 4)), "text")
    assert html_page("t", "x", [section]).encode("utf-8", errors="replace")


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "cell", "far_cell", "size", "weights", "out"])
def test_wrong_input_is_one_line_and_writes_nothing(kind, photo, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    out = tmp_path / "out"
    arguments = {
        "missing": [tmp_path / "none.jpg"],
        "folder": [tmp_path],
        "text": [photo, tmp_path / "text.jpg"],
        "empty": [tmp_path / "empty.jpg"],
        "cell": [photo, "--cell", "one"],
        "far_cell": [photo, "--cell", "8,1"],
        "size": [photo, "--image_size", 31],
        "weights": [photo, "--checkpoint", tmp_path / "text.jpg"],
        "out": [photo, "--out", tmp_path / "text.jpg" / "deeper"],
    }[kind]
    if kind == "cell":
        with pytest.raises(SystemExit) as stopped:
            run(*arguments)
        assert stopped.value.code == 2
    else:
        assert run("--out", out, *arguments) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ") and message.count("\n") == 1
    assert not out.exists()
