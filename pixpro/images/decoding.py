"""Encoded bytes -> uint8 RGB pixels, whatever the format; raises BadImage before a file can cost much memory."""

import io
import struct
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

try:
    from torchvision.io import ImageReadMode, decode_image

    _ = torch.ops.image.decode_image  # some builds of torchvision come without
except (ImportError, AttributeError):  # removal is announced for some version after 0.29; Pillow is a third slower
    decode_image = None

warnings.filterwarnings("ignore", message="The image decoding and encoding capabilities of TorchVision")

MAX_PIXELS = 100_000_000  # 300 MB decoded; the largest pictures of ImageNet have 25 million
MAX_SCANS = 200  # encoders write about ten; each scan of a progressive JPEG passes over the whole picture
# Named, so that Pillow never starts a helper program (EPS does) for a file that only pretends to be a picture.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")


class BadImage(Exception):
    """A file that cannot be used; its text says why."""


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Tensor:
    """RGB pixels (3, H, W) uint8, upright (EXIF orientation applied), as Pillow's `convert("RGB")` shows them.

    16-bit grey keeps its high byte (Pillow would clip it to white). Of several frames the first is taken.
    The memory is channels last, as decoders write it. Raises BadImage for empty, truncated, foreign or too large data.
    """
    if not data:
        raise BadImage("the file is empty")
    if data[:2] == b"\xff\xd8":
        size, channels = jpeg_header(data)
        check_size(size, max_pixels)
        if channels in (1, 3) and decode_image is not None:
            return decode_jpeg(data)
    return decode_other(data, max_pixels)


def decode_jpeg(data: bytes) -> Tensor:
    """RGB pixels (3, H, W) of a grey or colour JPEG; bit-identical to Pillow and faster."""
    try:
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return decode_image(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True)
    except RuntimeError as error:
        raise BadImage(f"damaged or truncated JPEG ({str(error).splitlines()[0][-80:]})") from None


def decode_other(data: bytes, max_pixels: int) -> Tensor:
    """RGB pixels (3, H, W) of every other format, by Pillow."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on sizes, palettes and EXIF: we check or convert
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                check_size(image.size, max_pixels)
                image = ImageOps.exif_transpose(image)
                pixels = to_rgb(image)
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage(f"not an image ({', '.join(FORMATS)} are read)") from None
    except Exception as error:  # Pillow's decoders raise almost anything for damaged data
        raise BadImage(f"{type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}") from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def to_rgb(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8, writable."""
    if image.mode.startswith("I"):
        high = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(high[:, :, None], 3, axis=2)
    return np.array(image.convert("RGB"))


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raise BadImage for a header that announces more than max_pixels, or none."""
    width, height = size
    if width * height > max_pixels:
        raise BadImage(f"{width}x{height} pixels, more than the limit of {max_pixels}")
    if width * height <= 0:
        raise BadImage(f"{width}x{height} pixels")


def jpeg_header(data: bytes) -> tuple[tuple[int, int], int]:
    """((width, height), channels) from the first frame header, found as libjpeg finds it; costs microseconds."""
    position, end = 2, len(data)
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
            return (width, height), channels
        else:
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    raise BadImage("a JPEG without a frame header, probably truncated")
