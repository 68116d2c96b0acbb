"""Lists of millions of files: small in memory, kept between runs, made anew when what they describe has changed."""

import contextlib
import hashlib
import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch

from pixpro.images.kinds import EXTENSIONS, LeftOut

Arrays = dict[str, np.ndarray]
VERSION = 2
# A change within two seconds of another may leave a coarse time stamp as it was, and the clock of a file server, which
# makes the stamps, may be a minute behind this machine's.
RACY_NS = 62_000_000_000


class Names:
    """A read-only list of file names, held in two tensors.

    Tensors, because a data loader hands them to its workers as shared memory whatever the start method, and because
    reading them touches no reference counts, so that forked workers never copy them.
    """

    def __init__(self, block: np.ndarray, ends: np.ndarray) -> None:
        self._block = torch.from_numpy(np.ascontiguousarray(block, dtype=np.uint8))
        self._ends = torch.from_numpy(np.ascontiguousarray(ends, dtype=np.int64))

    @classmethod
    def of(cls, names: Iterable[bytes]) -> "Names":
        """The same names, packed."""
        block, ends = bytearray(), []
        for name in names:
            block += name
            ends.append(len(block))
        return cls(np.frombuffer(block, dtype=np.uint8).copy(), np.array(ends, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, i: int) -> str:
        start = int(self._ends[i - 1]) if i else 0
        return os.fsdecode(self._block[start : int(self._ends[i])].numpy().tobytes())

    def arrays(self) -> dict[str, np.ndarray]:
        """What the constructor takes, for a file."""
        return {"block": self._block.numpy(), "ends": self._ends.numpy()}


class Store(ABC):
    """One place that holds images, a folder or an archive: what `Images` says of them, by their numbers here."""

    path: str
    names: Names  # below the place
    left_out: LeftOut  # what lies there, too, and is not read

    def __len__(self) -> int:
        return len(self.names)

    def name(self, i: int) -> str:
        return os.path.join(self.path, self.names[i].lstrip("/"))

    @abstractmethod
    def size(self, i: int) -> int:
        """Bytes of an image's file, -1 where that cannot be told."""

    @abstractmethod
    def read(self, i: int) -> bytes:
        """Encoded bytes of an image; raises BadImage."""


def cache_folder() -> Path:
    """$PIXPRO_CACHE, or pixpro/ in the user's cache folder ($XDG_CACHE_HOME or ~/.cache on Linux)."""
    if chosen := os.environ.get("PIXPRO_CACHE"):
        return Path(os.path.expanduser(chosen))
    try:
        folder = platformdirs.user_cache_path("pixpro", appauthor=False)
    except RuntimeError:  # there is no home; older releases return a path that begins with ~
        return of_nobody()
    return folder if folder.is_absolute() else of_nobody()


def of_nobody() -> Path:
    """A folder for temporary files that is this user's alone: for a user without a home, as in some containers."""
    folder = Path(tempfile.gettempdir(), f"pixpro-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.lstat().st_uid == os.getuid():
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="pixpro-"))  # somebody else has taken the name


def stamp(path: str | bytes) -> list[int]:
    """What changes when a file is written or a folder gains, loses or renames an entry; zeros if nothing is there."""
    try:
        status = os.stat(path)
    except OSError:
        return [0] * 5
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def cached(kind: str, path: str, make: Callable[[], tuple[Arrays, list[bytes]]]) -> Arrays:
    """make()'s arrays, from the cache if every file and folder that they were made from is as it was.

    make returns the arrays and the paths that decide: each folder that was listed, or the archive that was read, or
    what was not there and may come; an empty path forbids to keep the list.
    A cache that cannot be read or written costs time, never the run.
    """
    key = hashlib.sha256(f"{VERSION}\0{EXTENSIONS}\0{kind}\0{path}".encode(errors="surrogateescape")).hexdigest()[:32]
    file = cache_folder() / f"{kind}-{key}.npz"
    known = _load(file)
    if known is not None:
        return known
    started = time.time_ns()
    arrays, sources = make()
    stamps = [stamp(source) for source in sources]
    newest = max((max(s[3:]) for s in stamps), default=started)
    if b"" not in sources and newest < started - RACY_NS:
        _save(file, arrays, sources, stamps)
    return arrays


def _load(file: Path) -> Arrays | None:
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        sources = arrays.pop("sources").tobytes().split(b"\0")
        stamps = arrays.pop("stamps").tolist()
    except Exception:  # missing, truncated, of another version: whatever it is, the list is made anew
        return None
    if len(sources) != len(stamps) or any(stamp(s) != was for s, was in zip(sources, stamps, strict=True)):
        return None
    return arrays


def _save(file: Path, arrays: Arrays, sources: list[bytes], stamps: list[list[int]]) -> None:
    joined = np.frombuffer(b"\0".join(sources), dtype=np.uint8)
    contents: dict[str, Any] = {**arrays, "sources": joined, "stamps": np.array(stamps, dtype=np.int64)}
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
            try:
                np.savez(part, **contents)
                os.replace(part.name, file)
            except BaseException:
                os.unlink(part.name)
                raise
