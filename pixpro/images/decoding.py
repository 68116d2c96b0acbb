"""Encoded bytes -> uint8 RGB pixels, whatever the format; raises BadImage before a file can cost much memory."""

import io
import logging
import os
import warnings

import torch
from PIL import Image, ImageFile, UnidentifiedImageError, features
from torch import Tensor
from torch.utils.data import get_worker_info

from pixpro.errors import BadImage
from pixpro.images.depth import pixels_of, unread_tiff
from pixpro.images.jpeg import decode_jpeg, jpeg_header

LOG = logging.getLogger(__name__)
MAX_PIXELS = 100_000_000  # 300 MB decoded; the largest pictures of ImageNet have 25 million
# Named, so that Pillow never starts a helper program (EPS does) for a file that only pretends to be a picture.
FORMATS = ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"]
if features.check("avif"):  # in Pillow's own packages from 11.3 on
    FORMATS.append("AVIF")
try:
    from pillow_heif import register_heif_opener
except ImportError:
    pass
else:
    register_heif_opener(thumbnails=False)
    FORMATS.append("HEIF")


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Tensor:
    """RGB pixels (3, H, W) uint8, upright (EXIF orientation applied), as Pillow's `convert("RGB")` shows them.

    Samples of more than 8 bits are scaled (depth.py); Pillow would clip them. Of several frames the first is taken.
    The memory is channels last, as decoders write it. Raises BadImage for empty, truncated, foreign or too large data.
    """
    pixels, scaled = decode_and_tell(data, max_pixels)
    if scaled:
        say_once(scaled)
    return pixels


def decode_and_tell(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[Tensor, str]:
    """What `decode` returns, and by which range samples of more than 8 bits were scaled; "" if the format says it."""
    if not data:
        raise BadImage("the file is empty")
    if data[:2] == b"\xff\xd8":
        header = jpeg_header(data)
        check_size(header.size, max_pixels)
        if header.channels in (1, 3) and header.exif == header.exif_comes_first:
            pixels = decode_jpeg(data)
            if pixels is not None:
                return pixels, ""
    return decode_other(data, max_pixels)


def decode_other(data: bytes, max_pixels: int) -> tuple[Tensor, str]:
    """The same for every other format, by Pillow."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on sizes, palettes and EXIF: we check or convert

            def opened() -> ImageFile.ImageFile:
                return Image.open(io.BytesIO(data), formats=FORMATS)

            with opened() as image:
                check_size(image.size, max_pixels)
                pixels, scaled = pixels_of(image, opened)
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage(unread_tiff(data) or f"not an image ({', '.join(FORMATS)} are read)") from None
    except Exception as error:  # Pillow's decoders raise almost anything for damaged data
        raise BadImage(f"{type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}") from None
    return torch.from_numpy(pixels).permute(2, 0, 1), scaled


def say_once(scaled: str) -> None:
    """Log that images are scaled: once a run, by its first process or that one's first worker."""
    worker = get_worker_info()
    first = (worker is None or worker.id == 0) and os.environ.get("RANK", "0") == "0"
    if first and "PIXPRO_SAID_SCALED" not in os.environ:
        os.environ["PIXPRO_SAID_SCALED"] = "1"  # workers inherit it, whatever way they start
        LOG.warning(
            "an image of more than 8 bits a sample is brought to 8 by %s; so is every other one, each by what it "
            "states or uses (`python -m pixpro check` counts them)",
            scaled,
        )


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raise BadImage for a header that announces more than max_pixels, or none."""
    width, height = size
    if width * height > max_pixels:
        raise BadImage(f"{width}x{height} pixels, more than the limit of {max_pixels}")
    if width * height <= 0:
        raise BadImage(f"{width}x{height} pixels")
