"""What happens to runs on clusters, at an exact point: called in a run's own process before it trains."""

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import torch

from pixpro.checkpoints import checkpoint, saver
from pixpro.data import Loader
from pixpro.training.engine import Trainer


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_before_step(number: int, *, saved: bool = False) -> None:
    """Make the trainer's process die when this global step (from 0) begins; saved: with no write under way then."""
    step, after_step = Trainer.step, saver.Saver.after_step

    def at_once(self, *state):
        after_step(self, *state)
        self.finish()

    def deadly(self, micro_batches, present):
        if present == number:
            die()
        return step(self, micro_batches, present)

    Trainer.step = deadly
    if saved:
        saver.Saver.after_step = at_once


def die_while_saving(moment: str, save: int) -> None:
    """Make the process die in its save of this number (from 0): in the middle of the file, or around the renames."""
    saves = iter(range(1000))

    if moment == "half a file":
        write = torch.save

        def half(state, file):
            if next(saves) != save:
                return write(state, file)
            write(state, file)
            file.flush()
            os.ftruncate(file.fileno(), file.tell() // 2)
            die()

        checkpoint.torch.save = half
    else:
        before = {"before the renames": 0, "between the renames": 1}[moment]
        replace = os.replace

        def deadly(source, target):
            into = Path(target).name
            if into.startswith("last") and next(saves) == 2 * save + before:
                die()
            replace(source, target)

        saver.os.replace = deadly


def signal_in_step(number: int, name: str, times: int = 1) -> None:
    """Make the trainer's process get a signal while this global step (from 0) is under way."""
    step = Trainer.step

    def interrupted(self, micro_batches, present):
        if present == number:
            for _ in range(times):
                os.kill(os.getpid(), signal.Signals[name])
        return step(self, micro_batches, present)

    Trainer.step = interrupted


def refuse_saves(first: int, last: int, code: int = errno.ENOSPC) -> None:
    """Make these saves (from 0) fail in the middle of the file, as on a full disk; tried again at once."""
    saves = iter(range(1000))
    write = torch.save

    def full(state, file):
        if first <= next(saves) <= last:
            file.write(b"half")
            raise OSError(code, os.strerror(code))
        write(state, file)

    checkpoint.torch.save = full
    start = saver.Saver.__init__
    saver.Saver.__init__ = lambda self, *args, **options: start(self, *args, **options, retry_seconds=0.0)


def spoil_losses(numbers: set[int], rank: int = 0) -> None:
    """Make one process's loss NaN in these global steps (from 0)."""
    if int(os.environ.get("RANK", "0")) != rank:
        return
    loss, step = Trainer.loss, Trainer.step

    def spoiled(self, batch):
        value = loss(self, batch)
        return value * float("nan") if self.present in numbers else value

    def numbered(self, micro_batches, present):
        self.present = present
        return step(self, micro_batches, present)

    Trainer.loss, Trainer.step = spoiled, numbered


def stop_in_step(number: int, rank: int) -> None:
    """Make one process stand still, without ending, when this global step (from 0) begins."""
    if int(os.environ.get("RANK", "0")) == rank:
        step = Trainer.step

        def still(self, micro_batches, present):
            if present == number:
                os.kill(os.getpid(), signal.SIGSTOP)
            return step(self, micro_batches, present)

        Trainer.step = still


def kill_in_step(number: int, rank: int) -> None:
    """Make one process die when this global step (from 0) begins."""
    if int(os.environ.get("RANK", "0")) == rank:
        die_before_step(number)


def rename_in_step(number: int, source: str, target: str, back: int | None = None) -> None:
    """Move a folder away when a global step (from 0) begins, and back when another one does."""
    step = Trainer.step

    def moving(self, micro_batches, present):
        if present == number:
            os.rename(source, target)
        if present == back:
            os.rename(target, source)
        return step(self, micro_batches, present)

    Trainer.step = moving


def flip_a_bit(path: Path) -> None:
    """Damage a checkpoint where only its checksum can tell: in the middle of a weight."""
    weight = checkpoint.load(path)["model"]["encoder.layer1.0.weight"]
    content = bytearray(path.read_bytes())
    place = content.index(weight.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy().tobytes())
    content[place + 40] ^= 1
    path.write_bytes(content)


def of_rank(rank: int) -> bool:
    return int(os.environ.get("RANK", "0")) == rank


def fail_in_reading(number: int, rank: int, error: Exception) -> None:
    """Make one process meet an error while it reads the images of this global step (from 0)."""
    if of_rank(rank):
        read = Loader.__iter__

        def failing(self):
            for position, batch in enumerate(read(self), self.order.epoch * len(self) + self.order.step):
                if position == number:
                    raise error
                yield batch

        Loader.__iter__ = failing


def write_slowly(seconds: float) -> None:
    """Make each write of a checkpoint take its time in the middle of the file."""
    write = torch.save

    def slow(state, file):
        file.write(b"half")
        time.sleep(seconds)
        file.seek(0)
        file.truncate()
        write(state, file)

    checkpoint.torch.save = slow


def draw_slowly(seconds: float) -> None:
    """Make each picture of pairs take its time."""
    from pixpro.run import record

    draw = record.pairs_picture

    def slow(*args):
        time.sleep(seconds)
        return draw(*args)

    record.pairs_picture = slow


def kill_a_worker_in_step(number: int, rank: int = 0) -> None:
    """Make a loader worker of one process die when this global step (from 0) begins."""
    if of_rank(rank):
        step = Trainer.step

        def orphaned(self, micro_batches, present):
            if present == number:
                os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
            return step(self, micro_batches, present)

        Trainer.step = orphaned


def die_after_the_last_save() -> None:
    """Make the process die when its last state is on disk and nothing has been measured since."""
    write = saver.Saver.write_now

    def deadly(self, *args):
        write(self, *args)
        die()

    saver.Saver.write_now = deadly


def all_of(*acts) -> None:
    """Do several of these."""
    for act in acts:
        act()
