"""Hostile annotations and split files in VOC's layout: a parsed result or one line, and nothing outside is read."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from downstream.common.pictures import file_inside
from downstream.detection import voc_xml
from downstream.detection.voc import load_voc
from downstream.detection.voc_xml import read_annotation
from pixpro.errors import UserError
from pixpro.images.decoding import MAX_PIXELS

VALID = (
    "<annotation><filename>a.jpg</filename><size><width>40</width><height>30</height><depth>3</depth></size>"
    "<object><name>cat</name><difficult>0</difficult>"
    "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object></annotation>"
)
FIELDS = (">40<", ">30<", ">cat<", ">0<", ">1<", ">2<", ">20<", ">a.jpg<")
SECRET = "the text of a file outside"
FAST = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of one image; beside it a file that nobody may read."""
    (tmp_path / "secret.xml").write_text(SECRET)
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / "VOC" / part).mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(tmp_path / "VOC" / "JPEGImages" / "a.jpg")
    (tmp_path / "VOC" / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    return tmp_path / "VOC"


def result(folder: Path, xml: bytes) -> str | None:
    """The refusal of a data set with this annotation, None when it is read; both are looked at."""
    path, image = folder / "Annotations" / "a.xml", folder / "JPEGImages" / "a.jpg"
    path.write_bytes(xml)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data = load_voc(folder, "train", "train")
    except UserError as error:
        text = str(error)
        assert text.isprintable() and (str(folder) in text or "none of its" in text)
        assert len(text) < len(str(folder)) + 500 and SECRET not in text
        return text
    for found in data.train + data.test:
        assert found.path == image
        assert isinstance(found.width, int) and 0 < found.width * found.height <= MAX_PIXELS
        assert found.boxes.dtype == np.float32 and np.isfinite(found.boxes).all()
        assert found.boxes.shape == (len(found.labels), 4) and found.ignored.shape == found.labels.shape
        assert set(found.labels.tolist()) <= set(range(1, len(data.class_names) + 1))
    assert all(name and name.isprintable() and SECRET not in name for name in data.class_names)
    return None


def test_the_valid_annotation_is_read(folder):
    assert result(folder, VALID.encode()) is None


@FAST
@given(st.binary(max_size=300), st.sampled_from([b"", b"<annotation>", b"\xff\xfe<\x00a\x00", b'<?xml version="1.0" ']))
def test_arbitrary_bytes_are_refused(folder, data, start):
    assert result(folder, start + data) is not None


@FAST
@given(st.data())
def test_a_damaged_annotation_is_read_or_refused(folder, draw):
    data = bytearray(VALID.encode())
    for _ in range(draw.draw(st.integers(1, 4))):
        start = draw.draw(st.integers(0, len(data) - 1))
        data[start : start + draw.draw(st.integers(0, 20))] = draw.draw(st.binary(max_size=8))
    result(folder, bytes(data[: draw.draw(st.integers(0, len(data)) | st.just(len(data)))]))


NUMBERS = st.integers().map(str) | st.floats().map(repr) | st.integers(0, 5000).map(lambda digits: "9" * digits)


@FAST
@given(st.sampled_from(FIELDS), NUMBERS | st.text(max_size=20) | st.sampled_from(["1e39", "-1e308", "\u0663", "1_0"]))
@example(">40<", "9" * 4000)
@example(">20<", "3e38")
@example(">20<", "1e39")
@example(">1<", "x" * 10000)
@example(">0<", "9" * 4000)
@example(">cat<", "\u009b2J")
@example(">cat<", " ")
@example(">cat<", "y" * 100000)
@example(">a.jpg<", "../../secret.xml")
def test_any_value_in_any_field_is_read_or_refused(folder, field, value):
    escaped = value.translate({ord("<"): "&lt;", ord("&"): "&amp;"})
    result(folder, VALID.replace(field, f">{escaped}<", 1).encode("utf-8", "surrogatepass"))


BOMB = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
DOCTYPES = {
    "exponential": f'<!DOCTYPE a [<!ENTITY e0 "ha">{BOMB}]>',
    "quadratic": f'<!DOCTYPE a [<!ENTITY e11 "{"x" * 100_000}">]>',
    "file": '<!DOCTYPE a [<!ENTITY e11 SYSTEM "../../secret.xml">]>',
    "parameter": '<!DOCTYPE a [<!ENTITY % p SYSTEM "../../secret.xml"> %p;]>',
    "external": '<!DOCTYPE a SYSTEM "../../secret.xml">',
    "empty": "<!DOCTYPE a>",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("kind", DOCTYPES)
def test_entities_are_refused_and_files_they_name_stay_closed(folder, kind, encoding, monkeypatch):
    xml = f'<?xml version="1.0" encoding="{encoding}"?>' + DOCTYPES[kind] + VALID.replace("cat", "&e11;" * 200)
    (folder / "Annotations" / "a.xml").write_bytes(xml.encode(encoding))
    opened = []
    read = io.open

    def noted(file, *args, **options):
        opened.append(Path(file).name)
        return read(file, *args, **options)

    monkeypatch.setattr(io, "open", noted)
    with pytest.raises(UserError, match="document type"):
        read_annotation(folder / "Annotations" / "a.xml", folder / "JPEGImages" / "a.jpg")
    assert opened == ["a.xml"]


def test_a_file_above_the_limit_of_bytes_is_refused_unread(folder, monkeypatch):
    monkeypatch.setattr(voc_xml, "MAX_XML_BYTES", len(VALID))
    assert result(folder, VALID.encode()) is None
    assert "larger than" in result(folder, VALID.encode() + b" ")


NAMES = st.sampled_from(
    ["..", "../secret", "/etc/passwd", "a/../../secret", "a\x00", "~", ".a", "-", "a" * 300, "\x1b[2J"]
)


@FAST
@given(NAMES | st.text(min_size=1, max_size=20))
@example("a" * 300)
def test_any_line_in_a_split_file_names_a_file_inside_or_is_refused(folder, name):
    (folder / "Annotations" / "a.xml").write_text(VALID)
    (folder / "ImageSets" / "Main" / "train.txt").write_text(name, errors="replace")
    try:
        data = load_voc(folder, "train", "train")
    except UserError as error:
        assert str(error).isprintable() and SECRET not in str(error)
    else:
        assert [image.image_id for image in data.train] == ["a"] == [name.strip()]


@pytest.mark.parametrize("part", ["Annotations/b.xml", "JPEGImages/b.jpg"])
def test_a_link_that_leads_outside_is_refused(folder, part):
    for name, content in {"Annotations/b.xml": VALID, "JPEGImages/b.jpg": "x"}.items():
        if name == part:
            os.symlink(folder.parent / "secret.xml", folder / name)
        else:
            (folder / name).write_text(content)
    (folder / "ImageSets" / "Main" / "train.txt").write_text("b\n")
    with pytest.raises(UserError, match="outside"):
        load_voc(folder, "train", "train")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../secret.xml", "outside"),
        ("/etc/passwd", "outside"),
        ("a\0", "outside"),
        ("a" * 300, "no file"),
        ("", "no file"),
    ],
)
def test_a_name_from_an_index_of_any_format_stays_inside(folder, name, message):
    with pytest.raises(UserError, match=message):
        file_inside(folder / "Annotations", name, folder / "index.json")
