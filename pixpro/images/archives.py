"""Images in uncompressed tar and in zip files as a store with random access: an index, then one read per image.

Members are read, never extracted, so a member's name leads nowhere.
"""

import os
import struct
import zlib
from abc import abstractmethod
from pathlib import Path

import numpy as np
import torch

from pixpro.errors import BadImage, UserError
from pixpro.images.kinds import MAX_BYTES, LeftOut
from pixpro.images.listing import Arrays, Names, Store, cached
from pixpro.images.members import DEFLATED, Places, tar_members, zip_members

MAX_OPEN = 64  # shards kept open per process

_open: dict[str, int] = {}  # of this process; a forked one inherits them, and pread moves no shared position


def _descriptor(path: str) -> int:
    """A file descriptor for reading, kept open: on network storage, opening costs more than reading."""
    if path not in _open:
        while len(_open) >= MAX_OPEN:
            os.close(_open.pop(next(iter(_open))))
        _open[path] = os.open(path, os.O_RDONLY)
    return _open[path]


class ArchiveStore(Store):
    """The images of one archive in the order of its index; subclasses say how to index and read."""

    kind: str
    size_at: int  # which of the numbers that `extract` needs is the image's size

    def __init__(self, path: str | Path) -> None:
        self.path = os.path.realpath(path)
        index = cached(self.kind, self.path, self._scan)
        self.names = Names(index.pop("block"), index.pop("ends"))
        self._places = torch.from_numpy(index["places"])
        self.left_out = LeftOut.of(index["left_out"])

    def _scan(self) -> tuple[Arrays, list[bytes]]:
        try:
            found, left = self.members()
            places = np.array([place for _, *place in found] or np.empty((0, 1)), dtype=np.int64)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror or error})") from None
        except Exception as error:  # Python's readers raise almost anything for damaged archives
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"{self.path}: not a complete {self.kind} file ({reason}); expected an uncompressed .tar, or .zip"
            ) from None
        names = Names.of(os.fsencode(name) for name, *_ in found).arrays()
        return {**names, "places": places, "left_out": left.array()}, [os.fsencode(self.path)]

    @abstractmethod
    def members(self) -> tuple[Places, LeftOut]:
        """(name, numbers that `extract` needs ...) of every image, and the other members."""

    @abstractmethod
    def extract(self, place: list[int]) -> bytes:
        """Encoded bytes of one member."""

    def size(self, i: int) -> int:
        return int(self._places[i][self.size_at])

    def read(self, i: int) -> bytes:
        """Encoded bytes; raises BadImage if the archive is gone or damaged there."""
        try:
            return self.extract(self._places[i].tolist())
        except (OSError, struct.error, zlib.error) as error:
            raise BadImage(getattr(error, "strerror", None) or str(error)) from None

    def pread(self, size: int, offset: int) -> bytes:
        """Exactly `size` bytes from `offset`."""
        if size > MAX_BYTES:
            raise BadImage(f"{size} bytes, more than the limit of {MAX_BYTES}")
        data = os.pread(_descriptor(self.path), size, offset)
        if len(data) != size:
            raise BadImage("the archive ends before the image does")
        return data


class TarStore(ArchiveStore):
    """Images of an uncompressed tar file, webdataset shards included."""

    kind, size_at = "tar", 1

    def members(self) -> tuple[Places, LeftOut]:
        return tar_members(self.path)

    def extract(self, place: list[int]) -> bytes:
        offset, size = place
        return self.pread(size, offset)


class ZipStore(ArchiveStore):
    """Images of a zip file, stored or deflated."""

    kind, size_at = "zip", 2

    def members(self) -> tuple[Places, LeftOut]:
        return zip_members(self.path)

    def extract(self, place: list[int]) -> bytes:
        offset, packed, size, method = place
        if size > MAX_BYTES:
            raise BadImage(f"{size} bytes, more than the limit of {MAX_BYTES}")
        header = self.pread(30, offset)
        signature, name, extra = struct.unpack("<4s22xHH", header)
        if signature != b"PK\x03\x04":
            raise BadImage("no zip member where the index says")
        data = self.pread(packed, offset + 30 + name + extra)
        if method == DEFLATED:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
        if len(data) != size:
            raise BadImage("a zip member of another size than announced")
        return data


def open_archive(path: str | Path) -> ArchiveStore:
    """The store of a tar or zip file, told apart by what is in it; by its ending where that does not tell."""
    try:
        with open(path, "rb") as file:
            start = file.read(262)
    except OSError:  # opening the store says why
        start = b""
    if start[257:] == b"ustar":
        return TarStore(path)
    return ZipStore(path) if start[:2] == b"PK" or str(path).lower().endswith(".zip") else TarStore(path)
