"""Names from outside, wherever people see them: markup and control characters show as text and do nothing."""

import os
import pickle
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pixpro.errors import UserError, printable
from pixpro.plan import check
from pixpro.visualize import command
from pixpro.visualize.html_page import Section, html_page

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
    return html_page(name, name, [Section(name, Image.new("RGB", (1, 1)), name)] * 2)


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
    assert seen.alt == [PLAIN] * 2 and seen.text.count(PLAIN) == 7  # title, heading, text, 2 links, 2 sections


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
    source = type("Source", (), {"stores": [], "__len__": lambda self: 1})()
    empty = check.torch.zeros(0, dtype=check.torch.int64)
    shown = check.summary(source, check.Report(empty, empty, empty, {"a.jpg": "\x1b[2J\nnone"}), 224, 0.7, 0.08)
    assert "  a.jpg: \\x1b[2J\\nnone" in shown
