"""A fingerprint of nested tensors and plain values, by which a damaged checkpoint gives itself away."""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

MAX_VALUES = 10_000_000  # a file of a few bytes can refer to one list a billion times


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
            sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
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
