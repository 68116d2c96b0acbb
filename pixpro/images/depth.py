"""Pixels as Pillow opens them -> 8 bits: samples of more bits are scaled by the range that the file states or uses."""

import io
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin

from pixpro.errors import BadImage

PHOTOMETRIC, BITS, MIN, MAX, FORMAT, REAL_MIN, REAL_MAX, NO_DATA = 262, 258, 280, 281, 339, 340, 341, 42113  # of TIFF
UNSIGNED = 1
FILL = 1e30  # beyond it lie the fill values of formats without a tag for them, and infinity
OUTLIERS = 0.001  # of the samples at either end, clipped where they would take most of the range
ROWS = 2**20  # samples scaled at a time: the steps in between take eight bytes each
OTHER_BYTE = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


class Stated(NamedTuple):
    """What a file says of its samples."""

    range: tuple[float, float] | None = None
    whole: tuple[float, float] | None = None  # the range of the container, of which the samples may use a part
    missing: float | None = None  # the value that stands for "no data"
    inverted: bool = False  # the least value is white


def pixels_of(image: ImageFile.ImageFile, reopen: Callable[[], ImageFile.ImageFile]) -> tuple[np.ndarray, str]:
    """(H, W, 3) uint8, writable and upright, and by which range samples of more than 8 bits were scaled.

    With 8 bits or fewer, and with 16 bits of which the file uses most of the range, the text is empty: these are what
    Pillow's `convert("RGB")` and the high byte give. reopen opens the same file again.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        stated = stated_by(image)
        values = np.asarray(ImageOps.exif_transpose(image))
        if image.mode == "I" and tag(image, FORMAT) == UNSIGNED:
            values = values.view(np.uint32)
        levels, scaled = to_8_bits(values, stated)
        return np.repeat(levels[:, :, None], 3, axis=2), scaled
    rawmodes = {rawmode_of(tile) for tile in image.tile}
    upright = ImageOps.exif_transpose(image)
    pixels = np.array(upright.convert("RGB"))
    if not any(";16" in rawmode for rawmode in rawmodes) or int(pixels.max()) - int(pixels.min()) >= 127:
        return pixels, ""
    return from_both_bytes(np.asarray(upright), rawmodes, reopen)


def from_both_bytes(
    high: np.ndarray, rawmodes: set[str], reopen: Callable[[], ImageFile.ImageFile]
) -> tuple[np.ndarray, str]:
    """Colours of 16 bits a sample that use less than half of the range; Pillow reads one byte of each at a time."""
    if not all(re.fullmatch(r"(RGB|RGBA|RGBX|R|G|B|A);16[LBN]", rawmode) for rawmode in rawmodes):
        raise BadImage(
            f"16 bits a sample, less than half of the range used, stored as {', '.join(sorted(rawmodes))}; "
            "expected grey or RGB"
        )
    with reopen() as again:
        again.tile = [with_other_byte(tile) for tile in again.tile]
        low = np.asarray(ImageOps.exif_transpose(again))
    values = (high[..., :3].astype(np.uint16) << 8) | low[..., :3]
    return to_8_bits(values, Stated(whole=(0, 65535)))


def rawmode_of(tile: tuple) -> str:
    """How the samples of a part of the file are stored, in Pillow's words."""
    return str(tile[3][0] if isinstance(tile[3], tuple) else tile[3])


def with_other_byte(tile: tuple) -> Any:  # a tuple does; the class that the stubs name is private
    """The part of the file, to be read as if its samples had the other byte order."""
    rawmode = rawmode_of(tile)
    other = rawmode[:-1] + OTHER_BYTE[rawmode[-1]]
    arguments = (other, *tile[3][1:]) if isinstance(tile[3], tuple) else other
    return getattr(type(tile), "_make", tuple)((*tile[:3], arguments))


def tag(image: Image.Image, number: int) -> Any:
    """A tag's value, of several samples' the first; None where the file has none."""
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) and value else value


def stated_by(image: Image.Image) -> Stated:
    """What the file says of its one kind of samples."""
    bits, kind = tag(image, BITS), tag(image, FORMAT) or UNSIGNED
    if bits is None:  # PNG, PGM and others: unsigned, 16 bits
        return Stated(whole=None if image.mode == "F" else (0, 65535))
    full = (0, 2 ** int(bits) - 1) if kind == UNSIGNED else None
    low, high = number(tag(image, REAL_MIN)), number(tag(image, REAL_MAX))
    if high is None:
        low, high = number(tag(image, MIN)), number(tag(image, MAX))
    low = 0 if low is None else low
    told = None if high is None or not low < high or (low, high) == full else (low, high)
    if told is None and bits not in (16, 32):
        told = full
    return Stated(told, full if bits <= 16 else None, number(tag(image, NO_DATA)), tag(image, PHOTOMETRIC) == 0)


def number(value: Any) -> float | None:
    """A tag's value as a finite number; some are written as text."""
    try:
        read = float(value.rstrip("\0 ") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return None
    return read if abs(read) < FILL else None


def to_8_bits(values: np.ndarray, stated: Stated) -> tuple[np.ndarray, str]:
    """uint8 levels of the same shape and a description of the range; "no data" and NaN become 0."""
    known = values.reshape(-1)
    floating = values.dtype.kind == "f"
    if floating:
        known = known[np.abs(known) < FILL]  # false for NaN
    if stated.missing is not None:
        known = known[known != stated.missing]
    if not known.size:
        raise BadImage("no sample has a finite value")
    whole = stated.whole
    if stated.range:
        low, high = stated.range
        scaled = f"the range that it states, {low:g} to {high:g}"
    else:
        low, high = used_range(known)
        if floating and low >= 0 and high <= 1:
            whole = (0, 1)
        if whole and (low == high or high - low + (not floating) >= (whole[1] - whole[0] + (not floating)) / 2):
            low, high = whole
            scaled = "" if not floating else "the range from 0 to 1"
        else:
            scaled = f"the range that it uses, {low:g} to {high:g}"
    levels = np.empty(values.shape, np.uint8)
    rows = max(1, ROWS // max(1, values[0].size))
    for first in range(0, len(values), rows):
        block = values[first : first + rows].astype(np.float64)
        valid = np.abs(block) < FILL
        if stated.missing is not None:
            valid &= block != stated.missing
        # Integers: equal shares of the range, so that the whole range of 16 bits gives the high byte exactly.
        share = np.where(valid, block, low) - low
        shown = np.rint(share * (255 / (high - low or 1))) if floating else share * 256 // (high - low + 1)
        shown = shown.clip(0, 255)
        levels[first : first + rows] = np.where(valid, 255 - shown if stated.inverted else shown, 0)
    return levels, scaled


def used_range(known: np.ndarray) -> tuple[float, float]:
    """Least and greatest value; without the outermost thousandths where these take up most of the range."""
    low, high = float(known.min()), float(known.max())
    sample = np.sort(known[:: max(1, known.size // 100_000)])
    cut = int(OUTLIERS * len(sample))
    inner = float(sample[cut]), float(sample[-1 - cut])
    return inner if 0 < inner[1] - inner[0] < (high - low) / 8 else (low, high)


def unread_tiff(data: bytes) -> str:
    """What kind of TIFF it is that Pillow does not read; "" for what is no TIFF."""
    try:
        ifd = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file = io.BytesIO(data)
        file.seek(ifd.next)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tags of damaged files
            ifd.load(file)
        bits, kind = ifd.get(BITS, (1,)), ifd.get(FORMAT, (1,))[0]
    except Exception:  # no TIFF, or a damaged one
        return ""
    kind = {1: "unsigned", 2: "signed", 3: "floating-point"}.get(kind, "other")
    return (
        f"a TIFF of {len(bits)} {kind} sample(s) of {bits[0]} bits a pixel, which Pillow does not read; "
        "expected grey of 1 to 32 bits, or RGB of 8 or 16"
    )
