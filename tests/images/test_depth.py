"""Pictures of more than 8 bits a sample show what is in them, however stored; those of 8 bits are untouched."""

import io
import logging
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from pixpro.errors import BadImage
from pixpro.images.decoding import decode
from tests.helpers import pictures
from tests.helpers.deep_pictures import COLOURS, RAMP, own_tiff, png, scaled, shown, tiff

GREY = {
    "float 0..1": tiff(RAMP.astype(np.float32)),
    "float 0..1000": tiff((RAMP * 1000).astype(np.float32)),
    "float -5..5": tiff((RAMP * 10 - 5).astype(np.float32)),
    "float 0..1e-6": tiff((RAMP * 1e-6).astype(np.float32)),
    "float around 300": tiff((RAMP * 0.5 + 300).astype(np.float32)),
    "float, compressed": tiff((RAMP * 7).astype(np.float32), "tiff_lzw"),
    "float, big-endian": own_tiff((RAMP * 7).astype(np.float32), 3, order=">"),
    "int 32": tiff((RAMP * 2_000_000_000).astype(np.int32)),
    "int 32, negative": tiff((RAMP * 2_000_000_000 - 1_000_000_000).astype(np.int32)),
    "int 32, small": tiff((RAMP * 1000).astype(np.int32)),
    "unsigned 32": own_tiff((RAMP * 4_294_967_295).astype(np.uint32), 1),
    "12 in 16": tiff((RAMP * 4095).astype(np.uint16)),
    "10 in 16": tiff((RAMP * 1023).astype(np.uint16)),
    "12 in 16, compressed": tiff((RAMP * 4095).astype(np.uint16), "tiff_lzw"),
    "12 in 16, big-endian": own_tiff((RAMP * 4095).astype(np.uint16), 1, order=">"),
    "12 in 16, png": png((RAMP * 4095).astype(np.uint16), 0),
    "12 in 16, pgm": pictures.encoded(Image.fromarray((RAMP * 4095).astype(np.uint16)), "PPM"),
    "thermal": tiff((RAMP * 3000 + 28_000).astype(np.uint16)),
    "16": tiff((RAMP * 65535).astype(np.uint16)),
    "16, png": png((RAMP * 65535).astype(np.uint16), 0),
    "signed 16": tiff((RAMP * 4000 - 1000).astype(np.int16)),
    "signed 16, big-endian": own_tiff((RAMP * 4000 - 1000).astype(np.int16), 2, order=">"),
    "pfm": pictures.encoded(Image.fromarray((RAMP * 9).astype(np.float32)), "PPM"),
}


@pytest.mark.parametrize("name", GREY)
def test_grey_of_any_depth_is_shown_over_the_whole_range(name):
    # One level for rounding down, a quarter for the whole numbers that the ramp was stored in.
    assert np.abs(shown(GREY[name]) - scaled(RAMP)).max() <= 1.25


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("top", [4095, 20_000, 65535])
def test_colours_of_16_bits_keep_their_proportions(top, order):
    values = (COLOURS * top).astype(np.uint16)
    files = [own_tiff(values, 1, order=order), png(values, 2)]
    alpha = np.dstack([values, np.full(values.shape[:2], 65535, np.uint16)])
    files += [png(alpha, 6), own_tiff(alpha, 1, {"t338": 2, "t262": 2}, order)]
    for data in files:
        assert np.abs(shown(data) - COLOURS * 255).max() <= 1.01


def test_colours_of_16_bits_in_a_compressed_tiff(tmp_path):
    """Written by libtiff through Pillow's own re-compression of the file's bytes: the other way to decode them."""
    values = (COLOURS * 4095).astype(np.uint16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = Image.open(io.BytesIO(own_tiff(values, 1)))
        assert plain.tile[0][0] == "raw"
    deflated = deflate_strip(own_tiff(values, 1))
    assert Image.open(io.BytesIO(deflated)).tile[0][0] == "libtiff"
    assert np.abs(shown(deflated) - COLOURS * 255).max() <= 1.01


def deflate_strip(data: bytes) -> bytes:
    """The same TIFF with its one strip deflated."""
    with Image.open(io.BytesIO(data)) as image:
        (offset,), (size,) = image.tag_v2[273], image.tag_v2[279]
    packed = zlib.compress(data[offset : offset + size])
    head = bytearray(data[:offset])
    for place in range(10, offset, 12):
        number, form, count, value = struct.unpack_from("<HHII", head, place)
        if number == 259:
            struct.pack_into("<HHIHH", head, place, number, form, count, 8, 0)
        if number == 279:
            struct.pack_into("<HHII", head, place, number, form, count, len(packed))
            break
    return bytes(head) + packed


def test_grey_with_alpha_of_16_bits_is_shown_or_named():
    pair = np.dstack([(RAMP * 65535).astype(np.uint16), np.full(RAMP.shape, 65535, np.uint16)])
    assert np.abs(shown(png(pair, 4)) - scaled(RAMP)).max() <= 1.01
    pair[..., 0] //= 16
    with pytest.raises(BadImage, match="16 bits a sample, less than half of the range"):
        decode(png(pair, 4))


def test_twelve_packed_bits_are_twelve_bits():
    pairs = (RAMP * 1000).astype(np.uint16).reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
    data = bytearray(own_tiff(np.zeros((40, 90), np.uint8), 1))
    for place in range(10, 130, 12):
        number, form, count, _ = struct.unpack_from("<HHII", data, place)
        if number in (256, 258):
            struct.pack_into("<HHIHH", data, place, number, form, count, 60 if number == 256 else 12, 0)
    data[-3600:] = packed.astype(np.uint8).tobytes()
    assert np.array_equal(
        shown(bytes(data))[..., 0], (pairs.reshape(40, 60).astype(int) * 256 // 4096).astype(np.uint8)
    )


@pytest.mark.parametrize(
    "values, kind, words",
    [
        (np.zeros((8, 8, 5), np.uint16), 1, "5 unsigned sample.s. of 16 bits"),
        (np.zeros((8, 8, 3), np.float32), 3, "3 floating-point sample.s. of 32 bits"),
        (np.zeros((8, 8), np.float64), 3, "1 floating-point sample.s. of 64 bits"),
        (np.zeros((8, 8, 2), np.int16), 2, "2 signed sample.s. of 16 bits"),
    ],
    ids=["five bands", "float colours", "float64", "complex-like"],
)
def test_a_tiff_that_pillow_does_not_read_says_what_it_is(values, kind, words):
    with pytest.raises(BadImage, match=f"a TIFF of {words} a pixel.*expected grey"):
        decode(own_tiff(values, kind))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_pictures_are_turned_too(orientation):
    values = (RAMP * 4095).astype(np.uint16)
    expected = shown(tiff(values))
    turns = {2: (0, True), 3: (2, False), 4: (2, True), 5: (1, True), 6: (3, False), 7: (3, True), 8: (1, False)}
    quarter, mirror = turns.get(orientation, (0, False))
    expected = np.rot90(np.fliplr(expected) if mirror else expected, quarter)
    colours = png((COLOURS * 4095).astype(np.uint16), 2)
    assert np.array_equal(shown(tiff(values, t274=orientation)), expected)
    assert shown(colours).shape == (40, 60, 3)


def test_it_is_said_once(caplog, monkeypatch):
    monkeypatch.delenv("PIXPRO_SAID_SCALED", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    with caplog.at_level(logging.WARNING):
        decode(pictures.encoded(pictures.texture(8, 8), "PNG"))
        decode(GREY["16"])
        assert not caplog.records, "eight bits, and sixteen as always, are nothing to speak of"
        for name in ("12 in 16", "float 0..1", "int 32"):
            decode(GREY[name])
    (record,) = caplog.records
    assert "the range that it uses, 0 to 4095" in record.getMessage()


def test_only_the_first_process_of_a_run_says_it(caplog, monkeypatch):
    monkeypatch.delenv("PIXPRO_SAID_SCALED", raising=False)
    monkeypatch.setenv("RANK", "1")
    with caplog.at_level(logging.WARNING):
        decode(GREY["12 in 16"])
    assert not caplog.records
