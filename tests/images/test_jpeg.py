"""JPEG decoders: whichever is installed gives Pillow's pixels, and a machine without one still reads."""

import io
import struct
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from pixpro.data import Loader
from pixpro.data.gpu_decode import size_of
from pixpro.errors import BadImage, UserError
from pixpro.images import open_images
from pixpro.images.decoding import decode
from pixpro.images.jpeg import CANDIDATES, CPU, decoder_for, decoder_name
from tests.helpers import pictures

RGB = pictures.texture(40, 60)


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x112] = orientation
    return pictures.encoded(RGB, "JPEG", exif=exif)


FILES = {
    "colour": pictures.encoded(RGB, "JPEG"),
    "4:4:4": pictures.encoded(RGB, "JPEG", subsampling=0),
    "progressive": pictures.encoded(RGB, "JPEG", progressive=True),
    "grey": pictures.encoded(RGB.convert("L"), "JPEG"),
    "cmyk": pictures.encoded(RGB.convert("CMYK"), "JPEG"),
    "odd size": pictures.encoded(pictures.texture(33, 17), "JPEG"),
    **{f"orientation {number}": turned(number) for number in range(1, 9)},
}


@pytest.fixture
def only(monkeypatch):
    """Leaves one decoder, or none: Pillow."""

    def leave(name: str | None) -> None:
        monkeypatch.setattr("pixpro.images.jpeg.CANDIDATES", {name: CANDIDATES[name]} if name else {})
        decoder_for.cache_clear()

    yield leave
    decoder_for.cache_clear()


@pytest.mark.parametrize("name", [*CANDIDATES, None])
@pytest.mark.parametrize("file", FILES)
def test_every_decoder_gives_the_pixels_of_pillow(only, name, file):
    only(name)
    if name and decoder_for(CPU) is None:
        pytest.skip(f"{name} does not decode here")
    assert np.array_equal(decode(FILES[file]).permute(1, 2, 0).numpy(), pillow(FILES[file]))


@pytest.mark.parametrize("name", [*CANDIDATES, None])
def test_every_decoder_refuses_half_a_file(only, name):
    only(name)
    for keep in (3, 200, len(FILES["colour"]) // 2):
        with pytest.raises(BadImage):
            decode(FILES["colour"][:keep])


def test_torchcodec_comes_first_and_the_run_says_so():
    pytest.importorskip("torchcodec")
    assert decoder_for(CPU)[0] == "torchcodec" and decoder_name().startswith("torchcodec ")


@pytest.mark.parametrize("missing", ["not installed", "without decoders", "built for another torch"])
def test_without_torchcodec_and_torchvision_s_decoders_pillow_serves_and_says_what_is_faster(monkeypatch, missing):
    module = {"not installed": None, "without decoders": type(sys)("empty")}.get(missing, Broken("module"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
    monkeypatch.setitem(sys.modules, "torchvision.io", module)
    decoder_for.cache_clear()
    try:
        assert decoder_for(CPU) is None
        assert decoder_name().startswith("Pillow ") and "pip install torchcodec" in decoder_name()
        assert np.array_equal(decode(FILES["colour"]).permute(1, 2, 0).numpy(), pillow(FILES["colour"]))
    finally:
        decoder_for.cache_clear()


class Broken(type(sys)):
    """A module whose functions cannot be had, as after an update of torch alone."""

    def __getattr__(self, name: str) -> object:
        raise OSError("undefined symbol")


def test_a_decoder_that_does_not_decode_is_passed_over(monkeypatch):
    def fails(encoded, device):
        raise RuntimeError("built without libjpeg")

    monkeypatch.setattr("pixpro.images.jpeg.CANDIDATES", {"broken": lambda: fails, **CANDIDATES})
    decoder_for.cache_clear()
    try:
        assert decoder_for(CPU)[0] in CANDIDATES
    finally:
        decoder_for.cache_clear()


def segment(content: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def test_the_orientation_counts_where_other_metadata_stands_before_it():
    """Decoders look at the first APP1 segment only; editors put XMP there."""
    for orientation in (1, 6, 8):
        plain = turned(orientation)
        data = plain[:2] + segment(b"http://ns.adobe.com/xap/1.0/\0" + b"<x/>" * 8000) + plain[2:]
        assert np.array_equal(decode(data).permute(1, 2, 0).numpy(), pillow(data))
        pixels, size, decoded = size_of(data)
        assert decoded == (orientation != 1) and size == pillow(data).shape[:2]


@pytest.mark.parametrize("name", CANDIDATES)
def test_decoding_on_the_device_survives_without_torchvision_s_decoders(only, name, tmp_path):
    only(name)
    if decoder_for(CPU) is None:
        pytest.skip(f"{name} does not decode here")
    root = pictures.folder(tmp_path / "data", 4)
    settings = {"batch_size": 4, "image_size": 32}
    (batch,) = Loader(open_images([root]), decode_on=torch.device("cpu"), **settings)
    (expected,) = Loader(open_images([root]), **settings)
    assert (batch.view1.pixels.int() - expected.view1.pixels.int()).abs().max() <= 1


def test_decoding_on_a_device_that_no_package_decodes_on_is_refused(only, tmp_path):
    only(None)
    root = pictures.folder(tmp_path / "data", 4)
    with pytest.raises(UserError, match="--decode gpu: neither torchcodec nor torchvision.*pip install torchcodec"):
        Loader(open_images([root]), decode_on=torch.device("cpu"), batch_size=4)
