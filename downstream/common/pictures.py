"""Picture files: their pixels, and before a training their sizes, with complaints that name the file."""

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from PIL import Image
from torch import Tensor

from pixpro.data.cores import available_cores
from pixpro.errors import UserError
from pixpro.images.decoding import FORMATS, BadImage, decode
from pixpro.images.kinds import is_image

Item, Result = TypeVar("Item"), TypeVar("Result")
TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


def image_files(folder: Path) -> list[Path]:
    """All image files below the folder, sorted; UserError when there are none."""
    found = sorted(p for p in folder.rglob("*") if is_image(os.fsencode(p.name)) and p.is_file())
    if not found:
        raise UserError(f"{folder} holds no images" if folder.is_dir() else f"{folder} is not a folder of images")
    return found


def read_picture(path: Path) -> Tensor:
    """RGB pixels (3, H, W) uint8, upright; UserError when the file is missing, damaged or no picture."""
    try:
        return decode(path.read_bytes())
    except (BadImage, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}; repair or remove it") from error


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) as `decode` shows the picture, from its header alone; UserError when it has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on sizes and EXIF: decode decides
            with Image.open(path, formats=FORMATS) as image:
                turned = image.getexif().get(0x0112) in TURNED
                return image.size[::-1] if turned else image.size
    except Exception as error:  # Pillow raises almost anything for damaged data
        reason = "not a picture" if isinstance(error, Image.UnidentifiedImageError) else str(error)[:120]
        raise UserError(f"{path} cannot be read: {reason}") from error


def decoded_size(path: Path) -> tuple[int, int]:
    """(width, height) of the picture, all of which was decoded; UserError when it is damaged."""
    height, width = read_picture(path).shape[1:]
    return width, height


def checked(items: Sequence[Item], check: Callable[[Item], Result]) -> list[Result]:
    """check(item) of every item, by all cores; UserError with the first complaint and how many there are."""

    def attempt(item: Item) -> Result | UserError:
        try:
            return check(item)
        except UserError as error:
            return error

    with ThreadPoolExecutor(available_cores()) as pool:
        results = list(pool.map(attempt, items))
    complaints = [result for result in results if isinstance(result, UserError)]
    if len(complaints) > 1:
        raise UserError(f"{complaints[0]} (and {len(complaints) - 1} more)") from complaints[0]
    if complaints:
        raise complaints[0]
    return results
