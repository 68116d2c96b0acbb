"""Picture files: listed, found, read; before a training their sizes; with complaints that name the file."""

import os
import re
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
from pixpro.images.kinds import EXTENSIONS, is_image

Item, Result = TypeVar("Item"), TypeVar("Result")
TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
# In the order in which they are looked for; cameras and cards write capitals.
ENDINGS = tuple(
    variant for ending in (".jpg", *(e.decode() for e in EXTENSIONS)) for variant in (ending, ending.upper())
)


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


def checked(items: Sequence[Item], check: Callable[[Item], Result], *, by_all_cores: bool = False) -> list[Result]:
    """check(item) of every item; UserError with the first complaint and how many there are."""

    def attempt(item: Item) -> Result | UserError:
        try:
            return check(item)
        except UserError as error:
            return error

    if by_all_cores:
        with ThreadPoolExecutor(available_cores()) as pool:
            results = list(pool.map(attempt, items))
    else:
        results = [attempt(item) for item in items]
    complaints = [result for result in results if isinstance(result, UserError)]
    if len(complaints) > 1:
        raise UserError(f"{complaints[0]} (and {len(complaints) - 1} more)") from complaints[0]
    if complaints:
        raise complaints[0]
    return results


def read_split(listing: Path, layout: str) -> list[str]:
    """The image names that a split file lists, in its order; layout: what was expected, for the message."""
    if not listing.is_file():
        raise UserError(f"no split file {listing}; expected VOC's layout: {layout}")
    lines = listing.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"{listing} lists no images")
    if len(set(names)) < len(names):
        raise UserError(f"{listing} lists an image twice; each one counts once in the score")
    for name in names:
        if not re.fullmatch(r"[\w][\w.-]*", name):
            raise UserError(f"{listing} has the line {name[:60]!r}; expected one image name per line")
    return names


def file_inside(folder: Path, name: str, listed_in: Path) -> Path:
    """folder / name, when that is an existing file inside folder; UserError names the file that lists it."""
    path = folder / name
    if "\0" in name or not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{listed_in} names {name[:99]!r}, which lies outside {folder}; expected a name inside it")
    if not os.path.isfile(path):  # False also for names that no file system takes, where Path.is_file raises
        raise UserError(f"{listed_in} names {name[:99]!r}, but there is no file of that name in {folder}")
    return path


def picture_inside(folder: Path, stem: str, listed_in: Path, endings: tuple[str, ...] = ENDINGS) -> Path:
    """folder / stem with the first of the endings that is there: .jpg, .JPG, .jpeg, .png, ..."""
    for ending in endings:
        if os.path.isfile(folder / f"{stem}{ending}"):
            return file_inside(folder, f"{stem}{ending}", listed_in)
    known = ", ".join(dict.fromkeys(ending.lower() for ending in endings))
    hint = "; names are listed without their ending" if stem.endswith(endings) else ""
    raise UserError(f"{listed_in} names {stem[:99]!r}, but there is no file of that name in {folder} ({known}){hint}")
