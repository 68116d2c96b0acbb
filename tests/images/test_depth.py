"""Pictures of more than 8 bits a sample show what is in them, the same at every read; those of 8 bits are untouched."""

import io
import logging
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, TiffImagePlugin

from pixpro.errors import BadImage
from pixpro.images.decoding import decode, decode_and_tell
from tests.helpers import pictures

RAMP = np.linspace(0, 1, 40 * 60).reshape(40, 60)


def tiff(values: np.ndarray, compression: str | None = None, **tags: object) -> bytes:
    """A TIFF of one kind of samples; tags by their number as t340=..., in the data's own type."""
    if values.dtype == np.int16:
        return own_tiff(values, 2, tags)
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        info[int(name[1:])] = value
    return pictures.encoded(Image.fromarray(values), "TIFF", compression=compression, tiffinfo=info)


def own_tiff(values: np.ndarray, kind: int, tags: dict[str, int] | None = None, order: str = "<") -> bytes:
    """An uncompressed TIFF of any numbers, band by band within the pixel: kind 1 unsigned, 2 signed, 3 floats."""
    height, width = values.shape[:2]
    bands = values.shape[2] if values.ndim == 3 else 1
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    bits = values.dtype.itemsize * 8
    entries = {256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * bands), 259: (3, [1])}
    entries |= {262: (3, [2 if bands == 3 else 1]), 273: (4, [0]), 277: (3, [bands]), 278: (4, [height])}
    entries |= {279: (4, [len(data)]), 339: (3, [kind] * bands)}
    entries |= {int(name[1:]): (3, [value]) for name, value in (tags or {}).items()}
    start = 8 + 2 + 12 * len(entries) + 4
    extra, rows = b"", b""
    sizes = {3: ("H", 2), 4: ("I", 4)}
    room = sum(sizes[t][1] * len(v) for t, v in entries.values() if sizes[t][1] * len(v) > 4)
    for number in sorted(entries):
        form, content = entries[number]
        content = [start + room] if number == 273 else content
        packed = struct.pack(f"{order}{len(content)}{sizes[form][0]}", *content)
        if len(packed) > 4:
            packed, extra = struct.pack(f"{order}I", start + len(extra)), extra + packed
        rows += struct.pack(f"{order}HHI", number, form, len(content)) + packed.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}IH", 8, len(entries)) + rows + bytes(4) + extra + data


def png(values: np.ndarray, colour: int) -> bytes:
    """A PNG of 16 bits a sample: colour 0 grey, 2 RGB, 4 grey with alpha, 6 RGBA."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def shown(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8; the same at a second read."""
    (first, range1), (second, range2) = decode_and_tell(data), decode_and_tell(data)
    assert (first == second).all() and range1 == range2
    return first.permute(1, 2, 0).numpy()


def scaled(ramp: np.ndarray) -> np.ndarray:
    """What a ramp from the least to the greatest value looks like."""
    return np.repeat((ramp * 255)[:, :, None], 3, axis=2)


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


COLOURS = np.stack([RAMP, RAMP[::-1], 0.5 + RAMP * 0.5], axis=2)


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


def test_what_the_file_states_comes_before_what_it_holds():
    dark = (RAMP * 1000).astype(np.uint16)
    assert shown(tiff(dark, t280=0, t281=4095)).max() == 1000 * 256 // 4096
    assert shown(tiff(dark, t281=4095)).max() == 1000 * 256 // 4096
    assert shown(tiff(dark, t280=0, t281=65535)).max() == 255, "the whole range of the type states nothing"
    assert shown(tiff((RAMP * 0.25).astype(np.float32), t340=0.0, t341=0.5)).max() == round(0.5 * 255)
    assert shown(tiff(RAMP.astype(np.float32), t340=0.25, t341=0.75)).max() == 255
    assert (shown(tiff(RAMP.astype(np.float32), t340=0.25, t341=0.75))[RAMP < 0.25] == 0).all()
    assert decode_and_tell(tiff(dark, t281=4095))[1] == "the range that it states, 0 to 4095"


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


def test_samples_without_a_value_are_black_and_do_not_count():
    for hole in (np.nan, np.inf, -np.inf, -3.4028235e38):
        values = (RAMP + 1).astype(np.float32)
        values[:10] = hole
        pixels = shown(tiff(values))
        assert (pixels[:10] == 0).all() and pixels[10:].min() == 0 and pixels.max() == 255
    values = (RAMP * 10 + 100).astype(np.float32)
    values[:10] = -9999
    pixels = shown(tiff(values, t42113="-9999"))
    assert (pixels[:10] == 0).all() and pixels[10:].min() == 0 and len(np.unique(pixels)) > 200


def test_a_few_outliers_do_not_turn_the_picture_to_mud():
    values = (RAMP * 4095).astype(np.uint16)
    values[20, 30] = 65535
    values[5, 5] = 65535
    pixels = shown(tiff(values))
    assert np.abs(pixels - scaled(RAMP))[values != 65535].max() <= 2
    assert pixels[20, 30, 0] == 255


def test_white_is_zero_where_the_file_says_so():
    straight = tiff((RAMP * 4095).astype(np.uint16))
    assert np.array_equal(shown(tiff((RAMP * 4095).astype(np.uint16), t262=0)), 255 - shown(straight))


@pytest.mark.parametrize("values", [np.full((8, 8), np.nan, np.float32), np.full((8, 8), np.inf, np.float32)])
def test_a_file_without_a_finite_value_is_bad(values):
    with pytest.raises(BadImage, match="no sample has a finite value"):
        decode(tiff(values))


@pytest.mark.parametrize("value", [0, 7, 300, 65535])
def test_a_flat_picture_stays_flat(value):
    pixels = shown(tiff(np.full((8, 9), value, np.uint16)))
    assert (pixels == value >> 8).all()


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


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([np.uint16, np.int32, np.float32]).flatmap(
        lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))
    )
)
def test_any_values_keep_their_order(values):
    """Where one sample is greater than another, it is never shown darker; else there is a reason."""
    data = tiff(values)
    try:
        pixels = shown(data)[..., 0]
    except BadImage as error:
        assert str(error) == "no sample has a finite value"
        return
    known = np.abs(values.astype(np.float64)) < 1e30
    assert pixels.shape == values.shape and (pixels[~known] == 0).all()
    order = np.argsort(values[known], kind="stable")
    assert (np.diff(pixels[known][order].astype(int)) >= 0).all()


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
