"""Which image comes when: a permutation per epoch, cut into global batches, ranks and micro-batches."""

from collections.abc import Iterator

import numpy as np

from pixpro.errors import UserError

Key = tuple[int, int]  # (epoch, index): all that decides a sample besides the seed


def epoch_order(length: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of range(length) of one epoch, (length,) int64.

    From numpy's RandomState, the one generator whose stream is frozen for ever: a run resumed under a newer numpy
    goes on with the same order.
    """
    words = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, epoch]
    return np.random.RandomState(np.array(words, dtype=np.uint32)).permutation(length)


class MicroBatches:
    """Iterates over this rank's lists of keys, from a position to the end of its epoch.

    Step t of an epoch takes permutation[t * batch_size : (t + 1) * batch_size]; each rank has a contiguous part of it,
    each of its micro-batches a contiguous part of that. What is left over at the end of an epoch is not used.
    """

    def __init__(self, length: int, batch_size: int, rank: int, world_size: int, accumulation: int, seed: int):
        parts = world_size * accumulation
        if batch_size <= 0 or batch_size % parts:
            raise UserError(
                f"batch size {batch_size} cannot be shared by {world_size} processes x {accumulation} accumulation "
                f"steps; expected a multiple of {parts}"
            )
        if batch_size > length:
            raise UserError(
                f"batch size {batch_size} is larger than the data set of {length} images; "
                f"choose a smaller batch or add images"
            )
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.accumulation = accumulation
        self.micro = batch_size // parts
        self.first = rank * accumulation * self.micro
        self.epoch = self.step = 0

    @property
    def steps(self) -> int:
        """Global steps in an epoch."""
        return self.length // self.batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, order = self.epoch, epoch_order(self.length, self.seed, self.epoch)
        for step in range(self.step, self.steps):
            for part in range(self.accumulation):
                start = step * self.batch_size + self.first + part * self.micro
                yield [(epoch, int(index)) for index in order[start : start + self.micro]]
