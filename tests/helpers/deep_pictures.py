"""Pictures of more than 8 bits a sample, written sample by sample, and what is shown of them."""

import struct
import zlib

import numpy as np
from PIL import Image, TiffImagePlugin

from pixpro.images.decoding import decode_and_tell
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


COLOURS = np.stack([RAMP, RAMP[::-1], 0.5 + RAMP * 0.5], axis=2)
