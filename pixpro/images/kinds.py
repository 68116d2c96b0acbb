"""What a file's name says: an image that is read, an archive, or something that is left out; a tally of the last."""

import json
import os
from typing import NamedTuple

import numpy as np

from pixpro.errors import printable
from pixpro.images.decoding import FORMATS

EXTENSIONS = tuple(b".jpg .jpeg .jpe .jfif .png .bmp .gif .webp .tif .tiff .ppm .pgm .pbm".split())
if "AVIF" in FORMATS:
    EXTENSIONS += (b".avif",)
if "HEIF" in FORMATS:
    EXTENSIONS += (b".heic", b".heif", b".hif")
ARCHIVES = (b".tar", b".zip")
COMPRESSED = (b".tar.gz", b".tgz", b".tar.bz2", b".tbz2", b".tar.xz", b".txz", b".tar.zst", b".tar.lz4")
MAX_BYTES = 256 * 2**20  # of one encoded file
LISTED = 30  # kinds in the one line; `python -m pixpro check` names all


class Kind(NamedTuple):
    """A kind of things that are left out."""

    name: str
    why: str = ""  # nothing for files that are plainly no images
    missed: bool = False  # whether these may be images that somebody misses


HIDDEN = Kind("hidden")
# Endings of images and archives that are not read, and what to do about it.
ADVICE = {
    **dict.fromkeys((b".heic", b".heif", b".hif"), "to read them, `pip install pillow-heif`"),
    b".avif": "to read them, `pip install --upgrade pillow` (11.3 or later)",
    **dict.fromkeys(COMPRESSED, "compressed: unpack them, or repack them as .tar"),
    **dict.fromkeys(
        b".jp2 .j2k .jpx .jxl .tga .ico .psd .exr .hdr .svg .eps .pcx .dds .dng .cr2 .cr3 .nef .arw .orf .rw2".split(),
        "a format that is not read: convert them",
    ),
    **dict.fromkeys(
        b".7z .rar .gz .bz2 .xz .zst .parquet .tfrecord .lmdb .mdb .h5 .hdf5 .npz .npy .dcm .nii".split(),
        "may hold images that are not read: unpack or convert them",
    ),
}


def is_hidden(name: bytes) -> bool:
    """Whether a path has a part that starts with a dot (macOS leaves `._x.jpg`), or lies in macOS's own folder."""
    if name[:1] != b"." and b"/." not in name and b"__MACOSX" not in name:
        return False
    return any(part[:1] == b"." and part not in (b".", b"..") or part == b"__MACOSX" for part in name.split(b"/"))


def is_image(name: bytes) -> bool:
    """Whether a path says image; hidden ones do not count."""
    return name.lower().endswith(EXTENSIONS) and not is_hidden(name)


def kind_of(name: bytes) -> Kind:
    """What a file is, by its path, that is not read."""
    if is_hidden(name):
        return HIDDEN
    base = name.rsplit(b"/", 1)[-1].lower()
    ending = next((end for end in COMPRESSED if base.endswith(end)), None)
    if ending is None:
        stem, dot, last = base.rpartition(b".")
        ending = dot + last if stem else b""
    why = ADVICE.get(ending, "")
    return Kind(ending.decode(errors="backslashreplace") or "without an ending", why, missed=bool(why))


class LeftOut:
    """What lies below one place, or several, and is not used: how many of each kind, why, and the first of them."""

    def __init__(self, place: str = "") -> None:
        self.place = place
        self.found: dict[Kind, tuple[int, str]] = {}  # how many, and the first's path

    def add(self, kind: Kind, name: bytes | str, count: int = 1) -> None:
        """Count something by its path below the place."""
        before, first = self.found.get(kind) or (0, os.path.join(self.place, os.fsdecode(name)))
        self.found[kind] = before + count, first

    def add_file(self, name: bytes) -> None:
        """Count a file whose path alone says what it is."""
        self.add(kind_of(name), name)

    def merge(self, other: "LeftOut") -> None:
        """Count all that another tally holds."""
        for kind, (count, first) in other.found.items():
            self.add(kind, first, count)

    def __len__(self) -> int:
        return sum(count for count, _ in self.found.values())

    @property
    def missed(self) -> int:
        """How many of them may be images that somebody misses."""
        return sum(count for kind, (count, _) in self.found.items() if kind.missed)

    def lines(self, first: bool = True) -> list[str]:
        """One for each kind, the most important first; with the path of the first of those that have a reason."""
        order = sorted(self.found.items(), key=lambda item: (not item[0].missed, -item[1][0], item[0]))
        return [
            f"{count} {printable(kind.name)}"
            + (f" ({kind.why}{f'; first: {printable(path)}' if first else ''})" if kind.why else "")
            for kind, (count, path) in order
        ]

    def __str__(self) -> str:
        """One line; empty if nothing was left out."""
        lines = self.lines(first=False)
        if not lines:
            return ""
        more = f", and {len(lines) - LISTED} more kinds" if len(lines) > LISTED else ""
        more += "; `python -m pixpro check` says where" if self.missed else ""
        return f"{'warning: ' if self.missed else ''}left out {len(self)}: {', '.join(lines[:LISTED])}{more}"

    def array(self) -> np.ndarray:
        """Everything as bytes, for a file."""
        rows = [[*kind, *found] for kind, found in self.found.items()]
        return np.frombuffer(json.dumps([self.place, *rows]).encode(), dtype=np.uint8).copy()

    @classmethod
    def of(cls, array: np.ndarray) -> "LeftOut":
        """The tally that `array` was made from."""
        place, *rows = json.loads(array.tobytes())
        tally = cls(place)
        tally.found = {Kind(*kind): (count, first) for *kind, count, first in rows}
        return tally
