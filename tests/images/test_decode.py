"""Decoding: every format as Pillow's RGB, and nothing that a file contains hangs, crashes or eats memory."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pixpro.errors import BadImage
from pixpro.images.decoding import FORMATS, decode
from pixpro.images.jpeg import MAX_SCANS
from tests.helpers import pictures

RGB = pictures.texture(40, 60)


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def palette(transparency: int | None = None) -> bytes:
    options = {} if transparency is None else {"transparency": transparency}
    return pictures.encoded(RGB.convert("P"), "PNG", **options)


FILES = {
    "jpeg": pictures.encoded(RGB, "JPEG"),
    "jpeg 4:4:4": pictures.encoded(RGB, "JPEG", subsampling=0),
    "progressive jpeg": pictures.encoded(RGB, "JPEG", progressive=True),
    "grey jpeg": pictures.encoded(RGB.convert("L"), "JPEG"),
    "cmyk jpeg": pictures.encoded(RGB.convert("CMYK"), "JPEG"),
    "png": pictures.encoded(RGB, "PNG"),
    "grey png": pictures.encoded(RGB.convert("L"), "PNG"),
    "black and white png": pictures.encoded(RGB.convert("1"), "PNG"),
    "palette png": palette(),
    "palette png, transparent": palette(transparency=3),
    "png with alpha": pictures.encoded(RGB.convert("RGBA"), "PNG"),
    "grey png with alpha": pictures.encoded(RGB.convert("LA"), "PNG"),
    "gif": pictures.encoded(RGB.convert("P"), "GIF"),
    "bmp": pictures.encoded(RGB, "BMP"),
    "webp": pictures.encoded(RGB, "WEBP"),
    "tiff": pictures.encoded(RGB, "TIFF"),
    "cmyk tiff": pictures.encoded(RGB.convert("CMYK"), "TIFF"),
    "lab tiff": pictures.encoded(Image.merge("LAB", RGB.split()), "TIFF"),
    "ppm": pictures.encoded(RGB, "PPM"),
    "pgm": pictures.encoded(RGB.convert("L"), "PPM"),
}
if "AVIF" in FORMATS:
    FILES["avif"] = pictures.encoded(RGB, "AVIF")
if "HEIF" in FORMATS:
    FILES["heic"] = pictures.encoded(RGB, "HEIF")


@pytest.mark.parametrize("name", FILES)
def test_every_format_is_what_pillow_converts_to_rgb(name):
    pixels = decode(FILES[name])
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), pillow(FILES[name]))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", *({"AVIF"} & {*FORMATS})])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(form, orientation):
    data = oriented(form, orientation)
    pixels = decode(data)
    assert pixels.shape == ((3, 60, 40) if orientation > 4 else (3, 40, 60))
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), pillow(data))


HEIC = pytest.mark.skipif("HEIF" not in FORMATS, reason="the package pillow-heif is not installed")


LOSSLESS = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}


def oriented(form: str, orientation: int, **options: object) -> bytes:
    """RGB as a file whose EXIF tag says how it is turned; pillow-heif says so in the container, too, as cameras do."""
    exif = Image.Exif()
    exif[0x112] = orientation
    return pictures.encoded(RGB, form, exif=exif.tobytes(), **options)  # pillow-heif looks into bytes alone


@HEIC
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_is_turned_once_though_container_and_tag_both_say_so(orientation):
    found = decode(oriented("HEIF", orientation, **LOSSLESS))
    assert torch.equal(found, decode(oriented("PNG", orientation)))


@HEIC
def test_a_heic_whose_tag_alone_says_so_is_not_turned():
    """The container decides (ISO/IEC 23008-12); the tag is left over from the camera."""
    tag = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00"
    plain = oriented("HEIF", 1)
    assert plain.count(tag + b"\1") == 1
    assert torch.equal(decode(plain.replace(tag + b"\1", tag + b"\6")), decode(plain))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_high_byte(form):
    levels = np.linspace(0, 65535, 40 * 60).astype(np.uint16).reshape(40, 60)
    pixels = decode(pictures.encoded(Image.fromarray(levels), form))
    assert np.array_equal(pixels.numpy(), np.repeat((levels >> 8)[None].astype(np.uint8), 3, axis=0))


def test_the_first_frame_of_an_animation():
    frames = [pictures.texture(20, 30, seed).convert("P") for seed in range(3)]
    data = pictures.encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.array_equal(decode(data).permute(1, 2, 0).numpy(), pillow(data))


@pytest.mark.parametrize("name", FILES)
def test_truncated_files_are_bad(name):
    data = FILES[name]
    for keep in (0, 1, 2, 10, len(data) // 3, len(data) // 2):
        with pytest.raises(BadImage):
            decode(data[:keep])


def announced(width: int, height: int) -> bytes:
    """A JPEG whose header announces another size than it holds."""
    data = bytearray(FILES["jpeg"])
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(side: int) -> bytes:
    """A PNG that announces side x side pixels and starts to deliver."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"\0" * 10**6)) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("bomb", [announced(65500, 65500), png_bomb(11_000), png_bomb(10**5)])
def test_a_bomb_is_refused_by_its_header(bomb):
    with pytest.raises(BadImage, match="pixels"):
        decode(bomb)


def test_the_limit_of_pixels_is_exact():
    for name in ("jpeg", "png"):
        assert decode(FILES[name], max_pixels=2400).shape == (3, 40, 60)
        with pytest.raises(BadImage, match="60x40 pixels, more than the limit of 2399"):
            decode(FILES[name], max_pixels=2399)


def test_a_jpeg_of_endless_scans_is_refused():
    data = FILES["progressive jpeg"]
    scan = data.rindex(b"\xff\xda")
    with pytest.raises(BadImage, match="scans"):
        decode(data[:scan] + data[scan:-2] * (MAX_SCANS + 1) + b"\xff\xd9")


def test_garbage_between_the_segments_of_a_jpeg_hides_no_bomb():
    bomb = announced(65500, 65500)
    for filling in (b"\xff" * 20, b"\xff\x01", b"\x00" * 9, b"\xff\xe1\x00\x0aabcdefgh", b"\xff\xd0"):
        with pytest.raises(BadImage):
            decode(bomb[:2] + filling + bomb[2:])


def test_no_helper_program_runs_for_a_disguised_file():
    with pytest.raises(BadImage):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_damage_gives_pixels_or_bad_image_and_nothing_else(name, draw):
    data = bytearray(FILES[name])
    for _ in range(draw.draw(st.integers(1, 8))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    data = bytes(data[: draw.draw(st.integers(0, len(data)))])
    try:
        pixels = decode(data, max_pixels=10**6)
    except BadImage as error:
        assert str(error)
    else:
        assert pixels.dtype == torch.uint8 and pixels.shape[0] == 3 and 0 < pixels[0].numel() <= 10**6


@settings(max_examples=40, deadline=None)
@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xc0", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
)
def test_arbitrary_bytes_are_bad_images(data, start):
    with pytest.raises(BadImage):
        decode(start + data)
