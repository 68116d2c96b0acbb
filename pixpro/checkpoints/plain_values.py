"""What stands for the plain values that people keep beside their weights, so that reading them runs no foreign code.

A pickle names the functions that make its values. The names below lead to these functions instead, which accept plain
arguments only: a number of numpy's becomes Python's, an array a tensor, a path its text, a date itself.
"""

import argparse
import datetime
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

PLAIN_DTYPE = re.compile(r"[?bBhHiIlLqQefd]|b1|[iu][1248]|f[248]|c8|c16|[US]\d{1,5}")
NUMBERS = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
NUMBERS += ["bool", "bool_", "float16", "float32", "float64"]
MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")  # before numpy 2.0, and after


class Dtype:
    """Stands for numpy.dtype: kinds of numbers and of text, nothing else."""

    def __init__(self, code: Any, *_: Any) -> None:
        code = code.decode() if isinstance(code, bytes) else code
        if not (isinstance(code, str) and PLAIN_DTYPE.fullmatch(code)):
            raise ValueError(f"a numpy type that is neither number nor text ({str(code)[:20]})")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        order: Any = state[1].decode() if isinstance(state[1], bytes) else state[1]
        self.dtype = self.dtype.newbyteorder(order if order in ("<", ">") else "=")


def scalar(dtype: Dtype, data: bytes) -> int | float | complex | str | bytes:
    """Stands for numpy's function of this name: the number or text as Python's."""
    return np.frombuffer(data, dtype=dtype.dtype, count=1)[0].item()


class Array:
    """Stands for numpy.ndarray while a file is read; `plain` puts the tensor in its place."""

    tensor: torch.Tensor

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, columns_first, data = state
        values = np.frombuffer(data, dtype=dtype.dtype).reshape(shape, order="F" if columns_first else "C")
        native = np.ascontiguousarray(values, dtype=dtype.dtype.newbyteorder("="))
        self.tensor = torch.from_numpy(native.copy()).reshape(shape)


def array(kind: type, *_: Any) -> Array:
    """Stands for numpy's `_reconstruct`."""
    if kind is not Array:
        raise ValueError("an array that is no plain numpy array")
    return Array()


def text(*parts: Any) -> str:
    """Stands for the classes of pathlib: a path as text."""
    if not all(isinstance(part, str) for part in parts):
        raise ValueError("a path that is no text")
    return "/".join(parts).replace("//", "/")


def empty_dict(*_: Any) -> dict:
    """Stands for defaultdict, whose entries are then read into it."""
    return {}


def no_bytes() -> bytes:
    """Stands for bytes, which pickles call for none of them only."""
    return b""


def factory() -> None:
    """Stands for what a defaultdict would call; nothing calls it."""


# For torch.serialization.safe_globals: (what is called, the name in the pickle).
STAND_INS: list[Any] = [
    argparse.Namespace,
    (argparse.Namespace, "types.SimpleNamespace"),
    (Dtype, "numpy.dtype"),
    (Array, "numpy.ndarray"),
    *((kind, f"numpy.{kind}") for kind in NUMBERS),  # a type as a value: its name
    *((scalar, f"{module}.scalar") for module in MULTIARRAY),
    *((array, f"{module}._reconstruct") for module in MULTIARRAY),
    *((kind, f"builtins.{kind.__name__}") for kind in (frozenset, range, slice)),
    (no_bytes, "builtins.bytes"),
    (empty_dict, "collections.defaultdict"),
    *((factory, f"builtins.{name}") for name in ("list", "dict", "int", "float", "str", "bool", "tuple")),
    *(getattr(datetime, name) for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *(
        (text, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path")
    ),
]


def plain(contents: Any) -> Any:
    """The same contents with nothing of this module in their dicts and lists, which are changed where they are."""
    whole = [contents]
    for container, key, value in entries(whole):
        if not isinstance(container, tuple):
            container[key] = in_place_of(value)
    return whole[0]


def entries(contents: Any) -> Iterator[tuple[Any, Any, Any]]:
    """(container, key, value) of all in nested dicts, lists, tuples and namespaces, each container visited once."""
    seen, waiting = set(), [contents]
    while waiting:
        item = waiting.pop()
        item = vars(item) if isinstance(item, argparse.Namespace) else item
        if isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            for key, value in dict.items(item) if isinstance(item, dict) else enumerate(item):
                yield item, key, value
                waiting.append(item[key])  # what may now stand in its place


def in_place_of(value: Any) -> Any:
    """What a value of this module stands for; of other values themselves, a tuple with its parts replaced."""
    if isinstance(value, Array):
        return value.tensor
    if isinstance(value, Dtype):
        return value.dtype.name
    if type(value) is tuple and any(isinstance(part, Array | Dtype) for part in value):
        return tuple(in_place_of(part) if isinstance(part, Array | Dtype) else part for part in value)
    return value
