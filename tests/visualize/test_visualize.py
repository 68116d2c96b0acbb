"""`pixpro visualize` as a program: its pictures and its page survive any name, wrong input writes nothing."""

import base64
import io
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from pixpro import PixPro
from pixpro.visualize.command import main
from pixpro.visualize.page import Picture, Section, page
from tests.helpers import pictures


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    return pictures.scene_photo(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "pixpro.pth"
    torch.manual_seed(0)
    model = PixPro("resnet18", hidden_dim=16, dim=8, sharpness=3.0)
    config = {"loss": "pixpro", "sharpness": 3.0}
    torch.save({"model": model.state_dict(), "epoch": 7, "config": config}, path)
    return path


def run(*arguments):
    return main([*map(str, arguments)])


def test_the_command_writes_a_picture_for_each_image(photo, checkpoint, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    assert run(photo, "--checkpoint", checkpoint, "--out", out, "--image-size", 64) == 0
    with Image.open(out / "01-photo.png") as picture:
        assert picture.height > 1000
    assert run(photo, photo, "--out", out / "two", "--image_size", 64, "--cell", "2,1") == 0
    assert sorted(path.name for path in (out / "two").iterdir()) == ["01-photo.png", "02-photo.png"]
    assert (out / "two" / "01-photo.png").read_bytes() == (out / "two" / "02-photo.png").read_bytes()
    assert capsys.readouterr().out.count("wrote ") == 3


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
    seen = Page(text)
    assert "script" not in seen.tags and seen.text.count(name) == 2
    assert len(seen.images) == 2 and "http:" not in text and "https:" not in text
    for source in seen.images:
        kind, content = source.split(",", 1)
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            assert picture.width > 700
    assert all("<" not in path.name for path in (tmp_path / "out").iterdir())


def test_names_that_are_not_unicode_do_not_stop_the_page():
    section = Section("bad \udcff name", pictures=[[Picture(Image.new("RGB", (4, 4)), "text")]])
    assert "bad \\udcff name" in page("t", "x", [section], "a test").encode().decode()


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
