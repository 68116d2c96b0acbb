"""Split files and what they list: names of images, read as untrusted input, found inside their folder."""

import os
import re
from pathlib import Path

from pixpro.errors import UserError
from pixpro.images.kinds import EXTENSIONS

# In the order in which they are looked for; cameras and cards write capitals.
ENDINGS = tuple(
    variant for ending in (".jpg", *(e.decode() for e in EXTENSIONS)) for variant in (ending, ending.upper())
)


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
