"""Millions of file names without a Python object each: one block of bytes and where each name ends."""

import os
from collections.abc import Iterable

import numpy as np
import torch


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
