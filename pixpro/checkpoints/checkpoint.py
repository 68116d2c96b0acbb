"""Checkpoints: written atomically, read without executing anything, checked against their own checksum."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixpro.checkpoints.safe_load import load_untrusted
from pixpro.errors import UserError

LAST = "last.pth.tar"
PARTS = {"model": dict, "optimizer": dict, "step": int, "config": dict}
MAX_VALUES = 10_000_000  # a file of a few bytes can refer to one list a billion times


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors and plain types; the file appears complete, on disk, or not at all (OSError)."""
    with replacing(path) as partial:
        write(partial, state)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file beside `path`, to be written to the disk; it takes the place of `path` at the end, or is removed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        put_in_place(partial, path)
    except BaseException:
        discard(partial)
        raise


def write(path: Path, state: dict[str, Any]) -> None:
    """Write a state with its checksum and wait for the disk (OSError)."""
    try:
        with path.open("wb") as file:
            torch.save({**state, "checksum": checksum(state)}, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch wraps what the file raised
        raise OSError(reason(error)) from error


def discard(partial: Path) -> None:
    """Remove an unfinished file, where the disk that refused it lets us."""
    with contextlib.suppress(OSError):
        partial.unlink()


def reason(error: BaseException) -> str:
    """Why a write failed, in the system's words where there are any."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def put_in_place(partial: Path, path: Path) -> None:
    """Give a file that is complete and on disk its name, and wait until the name is on disk, too."""
    os.replace(partial, path)
    with contextlib.suppress(OSError):  # some network file systems cannot sync a folder, and need not
        sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file's contents, or a folder's names, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(path: Path) -> dict[str, Any]:
    """A state written by `save`, on the CPU. UserError when the file is missing, damaged or not a training state."""
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; expected one that training has written, such as {LAST}")
    state = load_untrusted(path)
    if not isinstance(state, dict) or not all(isinstance(state.get(name), kind) for name, kind in PARTS.items()):
        raise UserError(
            f"{path} holds no training state; expected a checkpoint of a run (weights: --init or --weights)"
        )
    expected = state.pop("checksum", None)
    try:
        found = checksum(state)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{path}: altered since it was written ({error}); use an older checkpoint") from None
    if found != expected:
        raise UserError(f"{path}: altered since it was written (its checksum differs); use an older checkpoint")
    return state


def load_newest(folder: Path, warn: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The newest good checkpoint of a folder and its state, or None if there is none at all.

    Each damaged one on the way is reported to `warn`. UserError when there are some and none is good.
    """
    damaged = 0
    for path in newest_first(folder):
        try:
            return path, load(path)
        except UserError as error:
            damaged += 1
            warn(f"{error}; trying the one before it")
    if damaged:
        raise UserError(f"none of the {damaged} checkpoint(s) in {folder} can be used; move them away to start anew")
    return None


def newest_first(folder: Path) -> list[Path]:
    """A folder's checkpoints: last.pth.tar, last-1.pth.tar, ... by age, then the numbered ones from the last epoch."""
    rolling = sorted(folder.glob("last*.pth.tar"), key=lambda path: (len(path.name), path.name))
    numbered = sorted(folder.glob("[0-9]*.pth.tar"), key=lambda path: (len(path.name), path.name), reverse=True)
    return rolling + numbered


def checksum(contents: Any) -> str:
    """SHA-256, in hexadecimal, over every value, its type and its place.

    Raises ValueError for contents that no checkpoint of ours has: other types, cycles, endless repetition.
    """
    sha = hashlib.sha256()
    for count, value in enumerate(flattened(contents)):
        if count > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values")
        if isinstance(value, Tensor):
            sha.update(f"{value.dtype} {tuple(value.shape)}".encode())
            sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        elif value is None or type(value) in (bool, int, float, str):
            sha.update(f"{type(value).__name__} {value!r};".encode(errors="surrogatepass"))
        else:
            raise ValueError(f"a value of type {type(value).__name__}")
    return sha.hexdigest()


def flattened(contents: Any) -> Iterator[Any]:
    """The values and keys of nested containers, depth first; each container is announced by its type and length."""
    waiting = [contents]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield f"dict of {len(value)}"
            waiting.extend(part for pair in reversed(value.items()) for part in reversed(pair))
        elif isinstance(value, list | tuple):
            yield f"{'tuple' if isinstance(value, tuple) else 'list'} of {len(value)}"
            waiting.extend(reversed(value))
        else:
            yield value
