"""Names from outside, wherever people see them: markup and control characters show as text and do nothing."""

import os
import pickle
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pixpro.errors import UserError, printable
from pixpro.images.kinds import LeftOut
from pixpro.plan import check
from pixpro.visualize import command
from pixpro.visualize.figure import drawn, wrapped
from pixpro.visualize.page import Picture, Section, Table
from pixpro.visualize.page import page as html_page

HOSTILE = "<img src=x onerror=alert(1)>\n\x1b[2J\x9b2J\u202egpj.jpg"
PLAIN = "<img src=x onerror=alert(1)>\\n\\x1b[2J\\x9b2J\\u202egpj.jpg"
NAMES = st.text(
    st.characters(exclude_characters="\\") | st.sampled_from("<>&\"'\n\x00\x1b\x9b\u202e\udcff"), max_size=30
)


class Page(HTMLParser):
    """What a browser makes of a page: its elements with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements, self.text, self.alt = [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, [name for name, _ in attrs]))
        self.alt += [value for name, value in attrs if name == "alt"]

    def handle_data(self, data):
        self.text += data


def page(name: str) -> str:
    picture, table = Picture(Image.new("RGB", (1, 1)), name), Table([name], [[name]])
    return html_page(name, name, [Section(name, [name], [[picture]], table, [name])] * 2, name)


@settings(max_examples=100, deadline=None)
@given(NAMES)
@example(HOSTILE)
@example('" onload="alert(1)')
@example("</title><script>alert(1)</script><!--")
def test_no_name_adds_to_a_page_more_than_its_text(name):
    text = page(name)
    seen, plain = Page(text), Page(page("name"))
    assert seen.elements == plain.elements
    assert text.replace("\n", "").isprintable() and text.count("\n") == page("name").count("\n")
    if name.isprintable():
        assert seen.alt == [name] * 2 and seen.text == plain.text.replace("name", name)


def test_a_page_shows_control_characters_by_their_codes():
    seen = Page(page(HOSTILE))
    assert seen.alt == [PLAIN] * 2 and seen.text.count(PLAIN) == 16


def written(text: str, **style: object) -> np.ndarray:
    """What a drawing shows of a text: (H, W, 3)."""

    def draw(figure):
        figure.set_size_inches(4, 1)
        figure.text(0.05, 0.5, text, **style)

    return np.asarray(drawn(draw, dpi=100))


@pytest.mark.parametrize("name", ["$x$", r"\frac{1}{2}", r"$\frac{a$", "^_{}$$", r"$\undefined$"])
def test_drawings_show_the_marks_of_mathematics_as_they_are(name):
    assert np.array_equal(written(name), written(name, parse_math=False))
    assert not np.array_equal(written("$x$"), written("$x$", parse_math=True))  # what it would be otherwise


@pytest.mark.parametrize("name", ["漢字.jpg", "\U0001f600.png", HOSTILE, "\udcff", "עברית", "a" * 300])
def test_drawings_survive_letters_without_a_shape_and_say_nothing(name, capfd, recwarn):
    lines = wrapped(name, 2.0, 9)
    assert "".join(lines).replace(" ", "") == printable(name).replace(" ", "")
    assert (written("\n".join(lines)) != written("")).any()
    assert not recwarn.list and capfd.readouterr() == ("", "")


def test_file_names_are_printed_on_one_line():
    name = os.fsdecode(b"/data/\xff\n\x1b[31m.jpg")
    assert printable(name) == "/data/\\udcff\\n\\x1b[31m.jpg"
    assert printable("/data/ünï cödé.jpg") == "/data/ünï cödé.jpg"
    assert Path(printable("a\u202eb")).name == "a\\u202eb"


@settings(max_examples=100, deadline=None)
@given(NAMES)
def test_an_error_is_one_line_whatever_it_quotes(name):
    text = str(UserError(f"no image in {name}"))
    assert text.isprintable() and text.startswith("no image in ")
    if name.isprintable():
        assert text == f"no image in {name}"


def test_an_error_passes_between_processes_unchanged():
    error = UserError(f"no image in {HOSTILE}")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.args) == (str(error), error.args) == (f"no image in {PLAIN}", (f"no image in {HOSTILE}",))


@pytest.mark.parametrize("program", ["visualize", "check"])
def test_programs_name_a_bad_file_in_one_line_of_plain_text(program, tmp_path, capsys):
    (tmp_path / HOSTILE).write_bytes(b"no image")
    if program == "visualize":
        assert command.main([str(tmp_path / HOSTILE), "--out", str(tmp_path / "out")]) == 2
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
    else:
        assert check.main([str(tmp_path), "--workers", "0"]) == 1
        shown = capsys.readouterr().out
    assert PLAIN in shown and all(line.isprintable() for line in shown.split("\n"))


def test_what_a_decoder_says_about_a_bad_file_is_plain_text_too():
    source = type("Source", (), {"stores": [], "left_out": LeftOut(), "__len__": lambda self: 1})()
    empty = check.torch.zeros(0, dtype=check.torch.int64)
    shown = check.summary(source, check.Report(empty, empty, empty, {"a.jpg": "\x1b[2J\nnone"}, {}), 224, 0.7, 0.08)
    assert "  a.jpg: \\x1b[2J\\nnone" in shown
