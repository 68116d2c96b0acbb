"""The indexes of tar and zip files: where each image lies, and what else is there. Nothing is extracted."""

import os
import posixpath
import stat
import tarfile
import zipfile
from typing import BinaryIO

from pixpro.images.kinds import ARCHIVES, Kind, LeftOut, is_image

BLOCK = 512  # a tar file consists of blocks
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf")  # gzip, bzip2, xz, zstd, 7-zip
STORED, DEFLATED = 0, 8
METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "XZ", 98: "PPMd", 99: "AES"}

NESTED = Kind("archive(s) inside an archive", "unpack the outer one", missed=True)
SPARSE = Kind("sparse member(s)", "repack the archive without --sparse", missed=True)
SYMBOLIC = Kind(
    "symbolic link(s) in an archive", "repack it with --dereference if their targets are missing", missed=True
)
UNRESOLVED = Kind("hard link(s) in an archive", "to a member that is no image, or not there", missed=True)
SPECIAL = Kind("pipe(s), device(s) or unknown members")
NO_END = Kind(
    "archive(s) without a mark of their end", "they may be cut short; the images up to there are read", missed=True
)
ENCRYPTED = Kind("encrypted member(s)", "unpack the archive with its password", missed=True)

Places = list[tuple]  # (name, numbers that reading needs ...) of every image


def tar_members(path: str) -> tuple[Places, LeftOut]:
    """(name, offset, size) of every image in a tar file, or in several joined by `cat`, and the rest.

    Raises ValueError, OSError or whatever tarfile raises for a damaged file.
    """
    found: Places = []  # of a hard link, (name, the other name)
    left = LeftOut(path)
    with open(path, "rb") as file:
        if file.read(6).startswith(PACKED):
            raise ValueError("it is compressed; unpack it or repack it as .tar")
        start: int | None = 0
        while start is not None:
            file.seek(start)
            start = next_tar(file, one_tar(file, found, left), left)
    return resolved(found, left), left


def one_tar(file: BinaryIO, found: Places, left: LeftOut) -> int:
    """Adds the members of the tar file that starts here; returns where it ends."""
    end = -1
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            if member.size < 0 or archive.offset <= end:  # tarfile would go round in circles
                raise ValueError(f"a member of negative size at byte {member.offset}")
            end = archive.offset
            archive.members = []  # type: ignore[attr-defined]  # not in the stubs; tarfile would keep 1 kB for each
            if member.isdir():
                continue
            name = os.fsencode(member.name)
            if not is_image(name):
                add_other(left, name)
            elif member.issparse():
                left.add(SPARSE, name)
            elif member.isreg():
                found.append((member.name, member.offset_data, member.size))
            elif member.islnk():
                found.append((member.name, member.linkname))
            else:
                left.add(SYMBOLIC if member.issym() else SPECIAL, name)
        return archive.offset


def add_other(left: LeftOut, name: bytes) -> None:
    """Count a member that is no image by its name."""
    if name.lower().endswith(ARCHIVES):
        left.add(NESTED, name)
    else:
        left.add_file(name)


def next_tar(file: BinaryIO, end: int, left: LeftOut) -> int | None:
    """Where another tar file starts after the zeros at the end of one; None if nothing follows."""
    file.seek(end)
    block = file.read(BLOCK)
    if not block:
        left.add(NO_END, b"")
    elif block.strip(b"\0"):  # tarfile takes a damaged header for the end
        raise ValueError(f"damaged at byte {end}")
    position = end
    while block:
        rest = block.lstrip(b"\0")
        if rest:
            start = (position + len(block) - len(rest)) // BLOCK * BLOCK
            file.seek(start)
            try:
                tarfile.TarInfo.frombuf(file.read(BLOCK), "utf-8", "surrogateescape")
            except tarfile.HeaderError:
                raise ValueError(f"something that is no tar file follows its end, at byte {start}") from None
            return start
        position += len(block)
        block = file.read(2**20)
    return None


def resolved(found: Places, left: LeftOut) -> Places:
    """The same images, hard links with the place of the member that they are another name of."""
    if all(len(image) == 3 for image in found):
        return found
    places: dict[str, tuple] = {}
    images: Places = []
    for name, *place in found:
        if len(place) == 1:
            meant = places.get(posixpath.normpath(place[0]))
            if meant is None:
                left.add(UNRESOLVED, os.fsencode(name))
                continue
            place = list(meant)
        places[posixpath.normpath(name)] = tuple(place)
        images.append((name, *place))
    return images


def zip_members(path: str) -> tuple[Places, LeftOut]:
    """(name, offset of its header, packed size, size, method) of every image in a zip file, and the rest."""
    found: Places = []
    left = LeftOut(path)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    check_whole(path, members)
    for member in members:
        if member.is_dir():
            continue
        name = os.fsencode(member.filename)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if not is_image(name):
            add_other(left, name)
        elif kind == stat.S_IFLNK:
            left.add(SYMBOLIC, name)
        elif kind not in (0, stat.S_IFREG):
            left.add(SPECIAL, name)
        elif member.flag_bits & 1:
            left.add(ENCRYPTED, name)
        elif member.compress_type not in (STORED, DEFLATED):
            method = METHODS.get(member.compress_type, f"method {member.compress_type}")
            why = "repack the archive as stored or deflated"
            left.add(Kind(f"member(s) compressed by {method}", why, missed=True), name)
        else:
            place = member.header_offset, member.compress_size, member.file_size, member.compress_type
            found.append((member.filename, *place))
    return found, left


def check_whole(path: str, members: list[zipfile.ZipInfo]) -> None:
    """Raise ValueError for a zip file that is a part of something: its list does not name all that there is."""
    if any(member.volume not in (0, 0xFFFF) for member in members):
        raise ValueError("one of several volumes; join them with `zip -s 0`")
    first = min((member.header_offset for member in members), default=0)
    with open(path, "rb") as file:
        if first and file.read(4) == b"PK\x03\x04":  # a self-extracting archive starts with a program
            raise ValueError("other members stand before those in its list, as when zip files are joined by `cat`")
