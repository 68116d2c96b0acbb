"""Image files in a folder, nested or flat, as a store: how many, their bytes, their names."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pixpro.errors import BadImage
from pixpro.images.kinds import ARCHIVES, EXTENSIONS, MAX_BYTES, Kind, LeftOut, is_hidden
from pixpro.images.listing import Arrays, Names, Store, cached

DOT = ord(".")
READ_ALREADY = Kind("folder(s)", "read already under another name")
LEADS_UP = Kind("link(s)", "to a folder above")


class FolderStore(Store):
    """The images below a folder, sorted by path; symbolic links are followed, each folder once.

    archives: paths of the archives found among them, in the same order. left_out: everything else.
    """

    def __init__(self, root: str | Path) -> None:
        self.path = os.path.realpath(root)
        listed = cached("folder", self.path, self._scan)
        self.left_out = LeftOut.of(listed.pop("left_out"))
        self.archives = [os.path.join(self.path, name) for name in json.loads(listed.pop("archives").tobytes())]
        self.names = Names(**listed)

    def _scan(self) -> tuple[Arrays, list[bytes]]:
        folders: list[bytes] = []
        archives: list[bytes] = []
        left = LeftOut(self.path)
        names = Names.of(walk(os.fsencode(self.path), folders, archives, left))
        listed = json.dumps([os.fsdecode(name) for name in archives]).encode()
        more = {"archives": np.frombuffer(listed, dtype=np.uint8).copy(), "left_out": left.array()}
        return names.arrays() | more, folders

    def size(self, i: int) -> int:
        return file_size(self.name(i))

    def read(self, i: int) -> bytes:
        """Encoded bytes; raises BadImage if the file is gone, unreadable or not a plain file."""
        try:
            # Without O_NONBLOCK, opening a pipe that bears the name of an image would wait for ever.
            file = os.open(self.name(i), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with open(file, "rb") as opened:
                status = os.fstat(file)
                if not stat.S_ISREG(status.st_mode):
                    raise BadImage("a pipe or a device, no plain file")
                size = status.st_size
                if size > MAX_BYTES:
                    raise BadImage(f"{size} bytes, more than the limit of {MAX_BYTES}")
                return opened.read(size)
        except OSError as error:
            raise BadImage(error.strerror or str(error)) from None


def file_size(path: str) -> int:
    """Bytes of a file; -1 if there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def walk(root: bytes, folders: list[bytes], archives: list[bytes], left: LeftOut) -> Iterator[bytes]:
    """Paths of images below root, relative to it, folder by folder in sorted order.

    Appends each folder listed, and each link that leads nowhere, to `folders` and the archives' relative paths to
    `archives`, and counts everything else in `left`: the files of hidden folders too, which are counted and not read.
    """
    seen: set[tuple[int, int]] = set()
    above = ids_above(root)
    pending, later = [b""], list[bytes]()  # hidden folders come last: a link may lead to what lies in them
    while pending or later:
        prefix = pending.pop() if pending else later.pop()
        path = os.path.join(root, prefix) if prefix else root
        hidden = is_hidden(prefix)
        try:
            status = os.stat(path)
            known = (status.st_dev, status.st_ino)
            if known in seen or known in above:
                left.add(READ_ALREADY if known in seen else LEADS_UP, prefix)
                continue
            images, other, inner = entries_of(path, prefix, hidden, folders, left)
        except OSError as error:
            left.add(Kind("folder(s)", error.strerror or "cannot be read", missed=True), prefix)
            folders.append(b"")  # has no stamp, so that the list is not kept and the next start tries again
            continue
        seen.add(known)
        folders.append(path)
        for name in reversed(inner):
            (later if hidden or is_hidden(name) else pending).append(prefix + name + b"/")
        for name in other:
            if name.lower().endswith(ARCHIVES) and not hidden and name[0] != DOT:
                archives.append(prefix + name)
            else:
                left.add_file(prefix + name)
        for name in images:
            yield prefix + name


def entries_of(
    path: bytes, prefix: bytes, hidden: bool, folders: list[bytes], left: LeftOut
) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Names of the images, of other files and of the folders in a folder, each sorted.

    A link that leads nowhere is an image if its name says so (reading it tells what is wrong), else counted in `left`.
    """
    images, other, inner = list[bytes](), list[bytes](), list[bytes]()
    with os.scandir(path) as entries:
        for entry in entries:
            name = entry.name
            reason = ""
            try:
                is_folder = entry.is_dir()
            except OSError as error:  # a link to itself, or through a folder that is closed to us
                is_folder, reason = False, error.strerror or "cannot be followed"
            if is_folder:
                # A hidden link is not followed: it would make its target's images hidden.
                as_file = (hidden or is_hidden(name)) and entry.is_symlink()
                (other if as_file else inner).append(name)
            elif not hidden and name[0] != DOT and name.lower().endswith(EXTENSIONS):
                images.append(name)
            elif hidden or name[0] == DOT or not entry.is_symlink() or os.path.exists(os.path.join(path, name)):
                other.append(name)
            else:
                left.add(Kind("link(s)", reason or "that lead nowhere", missed=True), prefix + name)
                folders.append(os.path.join(path, name))  # the list is made anew when there is something
    return sorted(images), sorted(other), sorted(inner)


def ids_above(root: bytes) -> set[tuple[int, int]]:
    """Device and inode of every folder that holds root: a link to one of them would lead round, past everything."""
    found, path = set(), root
    while path != (path := os.path.dirname(path)):
        status = os.stat(path)
        found.add((status.st_dev, status.st_ino))
    return found
