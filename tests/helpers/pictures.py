"""Small pictures, encoded in memory or written to folders, and the ways in which their files are damaged."""

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from pixpro.scenes.drawing import draw_scene

DAMAGE = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "no header": lambda data: data[:3],
    "text": lambda data: b"<html>404 not found</html>",
    "zeros": lambda data: b"\0" * len(data),
    "bomb": lambda data: re.sub(b"(\xff\xc0\x00\x11\x08)....", b"\\1\xff\xdc\xff\xdc", data, count=1, flags=re.S),
}


def texture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth colourful blobs with detail: what photographs are to a codec and to a filter."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    noise = rng.normal(0, 12, (height, width, 3))
    return Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))


def coordinates(height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 whose red is the column and whose green is the row; at most 256 of each."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    """The image as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def folder(path: Path, count: int, side: int = 48) -> Path:
    """`count` JPEG files 000.jpg ... of slightly different sizes in a new folder."""
    path.mkdir(parents=True)
    for i in range(count):
        texture(side + i % 5, side + 8 - i % 3, seed=i).save(path / f"{i:03}.jpg")
    return path


def colour_classes(path: Path) -> Path:
    """Red and blue pictures in folders of these names, so that any features tell them apart."""
    rng = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (path / name).mkdir()
        for number in range(5):
            pixels = rng.integers(0, 60, (40, 48, 3), np.uint8)
            pixels[..., channel] += 180
            Image.fromarray(pixels).save(path / name / f"{number}.png")
    return path


def scene_photo(folder: Path) -> Path:
    """photo.jpg, a sample scene."""
    path = folder / "photo.jpg"
    Image.fromarray(draw_scene(0, 14).pixels).save(path, quality=95)
    return path
