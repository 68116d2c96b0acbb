"""Images in uncompressed tar and in zip files as a store with random access: an index, then one read per image.

Members are read, never extracted, so a member's name leads nowhere; whatever is not a regular file is left out.
"""

import os
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from pixpro.errors import UserError
from pixpro.images.decoding import BadImage
from pixpro.images.folders import MAX_BYTES, is_image
from pixpro.images.listing import Arrays, cached
from pixpro.images.names import Names

ARCHIVES = (".tar", ".zip")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
STORED, DEFLATED = 0, 8
MAX_OPEN = 64  # shards kept open per process

_open: dict[str, int] = {}  # of this process; a forked one inherits them, and pread moves no shared position


def _descriptor(path: str) -> int:
    """A file descriptor for reading, kept open: on network storage, opening costs more than reading."""
    if path not in _open:
        while len(_open) >= MAX_OPEN:
            os.close(_open.pop(next(iter(_open))))
        _open[path] = os.open(path, os.O_RDONLY)
    return _open[path]


class ArchiveStore:
    """The images of one archive in the order of its index; subclasses say how to index and read."""

    kind: str

    def __init__(self, path: str | Path) -> None:
        self.path = os.path.realpath(path)
        index = cached(self.kind, self.path, self._scan)
        self._names = Names(index.pop("block"), index.pop("ends"))
        self._places = torch.from_numpy(index["places"])

    def _scan(self) -> tuple[Arrays, list[bytes]]:
        try:
            found = self.members()
            places = np.array([place for _, *place in found] or np.empty((0, 1)), dtype=np.int64)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror or error})") from None
        except Exception as error:  # Python's readers raise almost anything for damaged archives
            reason = str(error) or type(error).__name__
            raise UserError(
                f"{self.path}: not a complete {self.kind} file ({reason}); expected an uncompressed .tar, or .zip"
            ) from None
        names = Names.of(os.fsencode(name) for name, *_ in found).arrays()
        return {**names, "places": places}, [os.fsencode(self.path)]

    def members(self) -> list[tuple]:
        """(name, numbers that `extract` needs ...) of every image."""
        raise NotImplementedError

    def extract(self, place: list[int]) -> bytes:
        """Encoded bytes of one member."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._names)

    def name(self, i: int) -> str:
        return os.path.join(self.path, self._names[i].lstrip("/"))

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
    """Images of an uncompressed tar file, webdataset shards included (their other members are left out)."""

    kind = "tar"

    def members(self) -> list[tuple]:
        found, end = [], -1
        with tarfile.open(self.path, mode="r:") as archive:
            for member in archive:
                if member.size < 0 or archive.offset <= end:  # tarfile would go round in circles
                    raise ValueError(f"a member of negative size at byte {member.offset}")
                end = archive.offset
                archive.members = []  # tarfile would keep an object of 1 kB for each
                if member.isreg() and not member.issparse() and is_image(os.fsencode(member.name)):
                    found.append((member.name, member.offset_data, member.size))
            end = archive.offset
        with open(self.path, "rb") as file:
            file.seek(end)
            if file.read(512).strip(b"\0"):  # tarfile takes a damaged header for the end
                raise ValueError(f"damaged at byte {end}")
        return found

    def extract(self, place: list[int]) -> bytes:
        offset, size = place
        return self.pread(size, offset)


class ZipStore(ArchiveStore):
    """Images of a zip file, stored or deflated."""

    kind = "zip"

    def members(self) -> list[tuple]:
        found = []
        with zipfile.ZipFile(self.path) as archive:
            for m in archive.infolist():
                plain = stat.S_IFMT(m.external_attr >> 16) in (0, stat.S_IFREG) and not m.is_dir()
                readable = m.compress_type in (STORED, DEFLATED) and not m.flag_bits & 1
                name = os.fsencode(m.filename)
                if plain and readable and is_image(name) and not name.startswith(b"__MACOSX/"):
                    found.append((m.filename, m.header_offset, m.compress_size, m.file_size, m.compress_type))
        return found

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
    """The store of a .tar or .zip file."""
    return ZipStore(path) if str(path).lower().endswith(".zip") else TarStore(path)
