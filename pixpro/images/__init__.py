"""Where images come from: folders, tar shards and zip files, mixed at will -> one numbered list of encoded images."""

import bisect
import hashlib
import itertools
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from pixpro.errors import BadImage, UserError
from pixpro.images.archives import ArchiveStore, open_archive
from pixpro.images.decoding import decode
from pixpro.images.folders import FolderStore, file_size
from pixpro.images.kinds import ARCHIVES, COMPRESSED, EXTENSIONS, Kind, LeftOut
from pixpro.images.listing import Store

__all__ = ["BadImage", "ImageSet", "Images", "decode", "open_images", "sample_images"]

WITHOUT_IMAGES = Kind("archive(s)", "without an image that is read", missed=True)
UNPACKED = Kind("archive(s)", "their images lie unpacked beside them")
SIZED = 1000  # images whose sizes are compared: asking for all of them would take as long as listing them


class Images:
    """Stores one after the other, numbered through; 0 <= i < len everywhere.

    left_out: what lies beside the images and is not read.
    """

    def __init__(self, stores: Sequence[Store], left_out: LeftOut | None = None) -> None:
        self.stores = list(stores)
        self.left_out = left_out or LeftOut()
        self._ends = list(itertools.accumulate(len(store) for store in self.stores))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _find(self, i: int) -> tuple[Store, int]:
        place = bisect.bisect_right(self._ends, i)
        return self.stores[place], i - (self._ends[place - 1] if place else 0)

    def name(self, i: int) -> str:
        """Full path of image i; for an archive, its path with the member's name behind it."""
        store, i = self._find(i)
        return store.name(i)

    def size(self, i: int) -> int:
        """Bytes of image i, as far as its place can tell without reading it."""
        store, i = self._find(i)
        return store.size(i)

    def read(self, i: int) -> bytes:
        """Encoded bytes of image i; raises BadImage when they cannot be had."""
        store, i = self._find(i)
        return store.read(i)


class ImageSet(NamedTuple):
    """How many images there are, and a hash over their order, their names and some of their sizes."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
    fingerprint: str

    @classmethod
    def of(cls, source: Images) -> "ImageSet":
        """That of a source: its names below its folders and in its archives, wherever these are."""
        count = len(source)
        digest = hashlib.sha256()
        for store in source.stores:
            for array in store.names.arrays().values():
                digest.update(array.data)
        for index in sorted(random.Random(0).sample(range(count), min(SIZED, count))):
            digest.update(source.size(index).to_bytes(8, "little", signed=True))
        return cls(count, digest.hexdigest()[:32])

    def __str__(self) -> str:
        return f"{self.count} with names and sizes {self.fingerprint[:8]}"


def sample_images(source: Images, count: int) -> Iterator[Tensor]:
    """Up to `count` images (3, H, W) uint8, always the same ones; those that cannot be read are left out."""
    for index in random.Random(0).sample(range(len(source)), min(count, len(source))):
        try:
            yield decode(source.read(index))
        except BadImage:  # the loader replaces it, and `python -m pixpro check` names it
            continue


def open_images(roots: Sequence[str | Path]) -> Images:
    """All images below the given folders and in the given .tar and .zip files, in this order.

    A folder is searched to any depth; the archives in it follow its image files. What is not read is counted in the
    result's `left_out`. Lists are cached (listing.py), so that only the first start scans. Raises UserError for what
    is missing, empty or damaged.
    """
    stores: list[Store] = []
    left = LeftOut()
    for root in roots:
        stores.extend(_open_root(root, left))
    if not stores:
        raise UserError("no image folder given; expected at least one folder, .tar or .zip file")
    return Images(stores, left)


def _open_root(root: str | Path, left: LeftOut) -> list[Store]:
    path = os.path.expanduser(root)
    if not os.path.exists(path):
        raise UserError(f"{root}: no such folder or archive; check the path")
    here = LeftOut()
    if os.path.isdir(path):
        folder = FolderStore(path)
        here.merge(folder.left_out)
        found: list[Store] = [folder] if len(folder) else []
        found += _open_archives(folder.archives, here)
    elif os.fsencode(path).lower().endswith(ARCHIVES):
        archive = open_archive(path)
        found = [archive]
        here.merge(archive.left_out)
    elif os.fsencode(path).lower().endswith(COMPRESSED):
        raise UserError(f"{root}: a compressed archive cannot be read in random order; unpack it or repack it as .tar")
    else:
        raise UserError(f"{root}: neither a folder nor a .tar or .zip file")
    if not sum(len(store) for store in found):
        endings = b" ".join(EXTENSIONS).decode()
        there = f"; {str(here).removeprefix('warning: ')}" if len(here) else ""
        raise UserError(f"{root}: no images found (looked for {endings}, to any depth, and .tar or .zip shards){there}")
    left.merge(here)
    return found


def _open_archives(paths: Sequence[str], left: LeftOut) -> list[Store]:
    """The archives of a folder that hold images which do not lie beside them as well."""
    found: list[Store] = []
    for path in paths:
        archive = open_archive(path)
        if not len(archive):
            left.add(WITHOUT_IMAGES, path)
        elif _lies_unpacked(archive):
            left.add(UNPACKED, path)
            continue
        else:
            found.append(archive)
        left.merge(archive.left_out)
    return found


def _lies_unpacked(archive: ArchiveStore) -> bool:
    """Whether an archive's images, or 20 spread over them, are files beside it too, of the same names and sizes."""
    folder, stem = os.path.dirname(archive.path), os.path.splitext(archive.path)[0]
    step = max(1, len(archive) // 20)
    return any(
        all(
            file_size(os.path.join(beside, os.path.relpath(archive.name(i), archive.path))) == archive.size(i)
            for i in range(0, len(archive), step)
        )
        for beside in (folder, stem)
    )
