"""Where images come from: folders, tar shards and zip files, mixed at will -> one numbered list of encoded images."""

import bisect
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pixpro.errors import UserError
from pixpro.images.archives import ARCHIVES, COMPRESSED, open_archive
from pixpro.images.decoding import BadImage, decode
from pixpro.images.folders import EXTENSIONS, FolderStore

__all__ = ["BadImage", "Images", "decode", "open_images"]


class Store(Protocol):
    """One place that holds images."""

    def __len__(self) -> int: ...

    def name(self, i: int) -> str: ...

    def read(self, i: int) -> bytes: ...


class Images:
    """Stores one after the other, numbered through; 0 <= i < len everywhere."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = list(stores)
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

    def read(self, i: int) -> bytes:
        """Encoded bytes of image i; raises BadImage when they cannot be had."""
        store, i = self._find(i)
        return store.read(i)


def open_images(roots: Sequence[str | Path]) -> Images:
    """All images below the given folders and in the given .tar and .zip files, in this order.

    A folder is searched to any depth; if it holds no image files but archives (shards), these are read.
    Lists are cached (listing.py), so that only the first start scans. Raises UserError for what is missing or empty.
    """
    stores: list[Store] = []
    for root in roots:
        stores.extend(_open_root(root))
    if not stores:
        raise UserError("no image folder given; expected at least one folder, .tar or .zip file")
    return Images(stores)


def _open_root(root: str | Path) -> list[Store]:
    path = os.path.expanduser(root)
    if not os.path.exists(path):
        raise UserError(f"{root}: no such folder or archive; check the path")
    if os.path.isdir(path):
        folder = FolderStore(path)
        found = [folder] if len(folder) else [open_archive(shard) for shard in _shards(path)]
    elif path.lower().endswith(ARCHIVES):
        found = [open_archive(path)]
    elif path.lower().endswith(COMPRESSED):
        raise UserError(f"{root}: a compressed archive cannot be read in random order; unpack it or repack it as .tar")
    else:
        raise UserError(f"{root}: neither a folder nor a {' or '.join(ARCHIVES)} file")
    if not sum(len(store) for store in found):
        endings = b" ".join(EXTENSIONS).decode()
        raise UserError(f"{root}: no images found (looked for {endings}, to any depth, and .tar or .zip shards)")
    return found


def _shards(folder: str) -> list[str]:
    """Archives directly in a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.path for entry in entries if entry.name.lower().endswith(ARCHIVES) and entry.is_file())
