"""Image files in a folder, nested or flat, as a store: how many, their bytes, their names."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from pixpro.images.decoding import BadImage
from pixpro.images.listing import Arrays, cached
from pixpro.images.names import Names

EXTENSIONS = tuple(
    b".jpg .jpeg .jpe .jfif .png .bmp .gif .webp .tif .tiff .ppm .pgm .pbm".split()  # what decode reads
)
MAX_BYTES = 256 * 2**20  # of one encoded file


def is_image(name: bytes) -> bool:
    """Whether a file name says image; hidden files (macOS leaves `._x.jpg`) do not count."""
    base = name.rsplit(b"/", 1)[-1]
    return base.lower().endswith(EXTENSIONS) and not base.startswith(b".")


class FolderStore:
    """The images below a folder, sorted by path; symbolic links are followed, each folder once."""

    def __init__(self, root: str | Path) -> None:
        self.root = os.path.realpath(root)
        self._names = Names(**cached("folder", self.root, self._scan))

    def _scan(self) -> tuple[Arrays, list[bytes]]:
        folders: list[bytes] = []
        names = Names.of(walk(os.fsencode(self.root), folders))
        return names.arrays(), folders

    def __len__(self) -> int:
        return len(self._names)

    def name(self, i: int) -> str:
        return os.path.join(self.root, self._names[i])

    def read(self, i: int) -> bytes:
        """Encoded bytes; raises BadImage if the file is gone, unreadable or not a plain file."""
        try:
            # Without O_NONBLOCK, opening a pipe that bears the name of an image would wait for ever.
            file = os.open(self.name(i), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with open(file, "rb") as opened:
                size = os.fstat(file).st_size
                if size > MAX_BYTES:
                    raise BadImage(f"{size} bytes, more than the limit of {MAX_BYTES}")
                return opened.read(size)
        except OSError as error:
            raise BadImage(error.strerror or str(error)) from None


def walk(root: bytes, folders: list[bytes]) -> Iterator[bytes]:
    """Paths of images below root, relative to it, in sorted order; appends each folder listed to `folders`."""
    seen: set[tuple[int, int]] = set()
    pending = [b""]
    while pending:
        relative = pending.pop()
        path = os.path.join(root, relative) if relative else root
        try:
            status = os.stat(path)
            with os.scandir(path) as entries:
                listed = sorted((entry.name, entry.is_dir()) for entry in entries)
        except OSError as error:
            warnings.warn(f"{os.fsdecode(path)} is left out: {error.strerror}", stacklevel=2)
            folders.append(b"")  # has no stamp, so that the list is not kept and the warning comes again
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.append(path)
        pending.extend(
            os.path.join(relative, name) for name, is_folder in reversed(listed) if is_folder and name[:1] != b"."
        )
        for name, is_folder in listed:
            if not is_folder and is_image(name):
                yield os.path.join(relative, name)
