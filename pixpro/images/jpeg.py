"""JPEG bytes -> RGB pixels by the fastest decoder that works here, on the CPU or on a GPU."""

import functools
import importlib.metadata
import io
import re
import struct
import warnings
from collections.abc import Callable
from typing import NamedTuple, cast

import PIL
import torch
from PIL import Image
from torch import Tensor

from pixpro.errors import BadImage

warnings.filterwarnings("ignore", message="The image decoding and encoding capabilities of TorchVision")

MAX_SCANS = 200  # encoders write about ten; each scan of a progressive JPEG passes over the whole picture

Decoder = Callable[[list[Tensor], torch.device], list[Tensor]]  # encoded bytes -> RGB (3, H, W) uint8, upright on a CPU


def with_torchcodec() -> Decoder:
    """torchcodec's decoder: libjpeg-turbo on the CPU, nvJPEG on a GPU; needs no FFmpeg. Raises without the package."""
    from torchcodec.decoders import decode_jpeg

    # It was given a list, and so gives one.
    return lambda encoded, device: cast(list[Tensor], decode_jpeg(encoded, mode="RGB", device=device))


def with_torchvision() -> Decoder:
    """torchvision's decoder, the same libraries; its end is announced. Raises where torchvision comes without."""
    from torchvision.io import ImageReadMode, decode_jpeg

    return lambda encoded, device: decode_jpeg(
        encoded, mode=ImageReadMode.RGB, device=device, apply_exif_orientation=device.type == "cpu"
    )


CANDIDATES = {"torchcodec": with_torchcodec, "torchvision": with_torchvision}  # in order of preference


@functools.cache
def decoder_for(device: torch.device) -> tuple[str, Decoder] | None:
    """Name and function of the first candidate that decodes a small JPEG on this device; None if none does."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    small = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
    for name, candidate in CANDIDATES.items():
        try:
            decode = candidate()
            if decode([small], device)[0].shape == (3, 8, 8):
                return name, decode
        except Exception:  # not installed, built for another torch, or without this device: whatever it is, the next
            continue
    return None


CPU = torch.device("cpu")


def decode_jpeg(data: bytes) -> Tensor | None:
    """RGB pixels (3, H, W) of a grey or colour JPEG, bit-identical to Pillow and faster; None with Pillow alone."""
    chosen = decoder_for(CPU)
    if chosen is None:
        return None
    try:
        return chosen[1]([torch.frombuffer(bytearray(data), dtype=torch.uint8)], CPU)[0]
    except RuntimeError as error:
        reason = re.sub(r".*\.cpp:\d+,? ", "", str(error).splitlines()[0])  # where in its source it found out
        raise BadImage(f"damaged or truncated JPEG ({reason[-80:]})") from None


def decoder_name(device: torch.device = CPU) -> str:
    """What decodes JPEG files on this device, for people."""
    chosen = decoder_for(device)
    if chosen is None:
        return f"Pillow {PIL.__version__} (a third slower than torchcodec: `pip install torchcodec`)"
    return f"{chosen[0]} {importlib.metadata.version(chosen[0])}" + (" on the GPU" if device.type == "cuda" else "")


class Header(NamedTuple):
    """What stands before the pixels of a JPEG."""

    size: tuple[int, int]  # width, height
    channels: int
    exif: bool  # whether it has EXIF data, and so maybe another orientation
    exif_comes_first: bool  # decoders look for the orientation in the first APP1 segment only


def jpeg_header(data: bytes) -> Header:
    """The first frame header, found as libjpeg finds it; costs microseconds."""
    position, end, app1 = 2, len(data), list[bool]()
    while position + 4 <= end:
        if data[position] != 0xFF:
            position = data.find(b"\xff", position)  # libjpeg skips garbage between segments
            if position < 0:
                break
            continue
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # markers without content
            position += 2
        elif marker in (0xD9, 0xDA):  # the end, or pixels before any frame header
            break
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if position + 10 > end:
                break
            height, width, channels = struct.unpack_from(">HHB", data, position + 5)
            if marker in (0xC2, 0xC6, 0xCA, 0xCE) and data.count(b"\xff\xda") > MAX_SCANS:
                raise BadImage(f"a progressive JPEG of more than {MAX_SCANS} scans")
            return Header((width, height), channels, any(app1), app1[:1] == [True])
        else:
            if marker == 0xE1:
                app1.append(data.startswith(b"Exif\0\0", position + 4))
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    raise BadImage("a JPEG without a frame header, probably truncated")
