"""A file of weights from anywhere -> its Python contents, without running anything that is written in it."""

import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from pixpro.checkpoints.plain_values import STAND_INS, entries, plain
from pixpro.errors import UserError


def load_untrusted(path: str | os.PathLike) -> Any:
    """What a checkpoint holds: tensors (on the CPU), plain types, and argparse.Namespace as the official code saves it.

    numpy's numbers are read as Python's, its arrays as tensors, paths as text (plain_values.py).
    Reads both formats of torch.save, and safetensors. Code in a pickle is refused,
    not run; so are archives that unpack to more than they are. Raises UserError, in one line, for anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a checkpoint")
    with open(path, "rb") as file:
        start = file.read(9)
    if start.startswith(b"PK"):
        check_archive(path)
    elif start[8:] == b"{":
        return load_safetensors(path)
    elif not start.startswith(b"\x80"):
        raise UserError(f"{path}: not a checkpoint (starts with {start!r}); expected a file of torch.save")
    return load_pickle(path)


def check_archive(path: Path) -> None:
    """Refuse a zip file whose entries are compressed or overlap: torch.save writes neither, zip bombs need one."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # a damaged archive raises whatever its damage leads to
        raise UserError(
            f"{path}: damaged or cut short ({one_line(str(error), error)}); fetch or write it again"
        ) from None
    unpacked = sum(entry.file_size for entry in entries)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or unpacked > path.stat().st_size:
        raise UserError(f"{path}: a zip file that torch.save did not write (compressed entries); not read")


def load_pickle(path: Path) -> Any:
    """The contents of a file of torch.save, restricted to tensors and plain types."""
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(STAND_INS):
            warnings.simplefilter("ignore")  # about storage classes of old files
            contents = plain(torch.load(path, map_location="cpu", weights_only=True))
        check_storages(path, contents)
    except UserError:
        raise
    except Exception as error:  # a foreign or damaged file raises whatever its bytes lead to
        refused = re.search(r"GLOBAL ([\w.]+) ", str(error))
        if refused:
            raise UserError(
                f"{path}: refused, not run: it wants {refused[1]} while it is read; expected tensors and plain types"
            ) from None
        # torch wraps the reason in advice to read the file unsafely, which is not ours to pass on.
        reason = str(error).rpartition("WeightsUnpickler error:")[2].partition("Check the documentation")[0]
        raise UserError(f"{path}: damaged, cut short or not a checkpoint ({one_line(reason, error)})") from None
    return contents


def check_storages(path: Path, contents: Any) -> None:
    """Refuse tensors that claim more memory than the file has bytes, or are not plain arrays on the CPU."""
    storages: dict[int, int] = {}
    for tensor in (value for *_, value in entries([contents]) if isinstance(value, Tensor)):
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if plain:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        if not plain or tensor.numel() * tensor.element_size() > storage.nbytes():
            raise UserError(f"{path}: holds a tensor that is not a plain array of numbers; expected weights")
    if sum(storages.values()) > path.stat().st_size:
        raise UserError(f"{path}: its tensors claim more bytes than the file has; not read")


def load_safetensors(path: Path) -> dict[str, Any]:
    """Tensors and metadata of a safetensors file, as {"state_dict": ..., "metadata": ...}."""
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()  # the file itself cannot be iterated over
            return {"state_dict": {name: file.get_tensor(name) for name in names}, "metadata": file.metadata()}
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise UserError(f"{path}: damaged or cut short ({one_line(str(error), error)})") from None


def one_line(text: str, error: Exception, limit: int = 120) -> str:
    """An error's words without line breaks and unprintable characters; its type if it has none."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
