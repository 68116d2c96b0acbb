"""The loader: images -> micro-batches of two views, the same whatever the number of workers and ranks, resumable."""

import functools
import logging
import math
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from pixpro.data.gpu_decode import EncodedSamples, Finished
from pixpro.data.samples import Batch, MicroBatches, NothingReadable, Samples
from pixpro.data.views import Distance
from pixpro.errors import BadImage, MachineFailed, UserError, first_line, printable
from pixpro.images import Images, decode
from pixpro.images.jpeg import CPU, decoder_for, decoder_name

__all__ = ["Batch", "Loader"]

LOG = logging.getLogger(__name__)
LISTED = 20  # bad files named in the message that stops a run


class Loader:
    """Iterates over this rank's micro-batches from the position set to the end of that epoch.

    batch_size: images per optimizer step, over all ranks and accumulation steps.
    crop_min: smallest crop as a share of the image's area.
    max_bad: largest share of unreadable files that is replaced without stopping.
    decode_on: a CUDA device whose nvJPEG decodes, for machines with few cores (gpu_decode.py); None: the workers do.
    start_method: how workers start (fork, forkserver, spawn); None is Python's default.
    Raises UserError when the batch does not fit the data set or cannot be shared out.

    bad_files: what is wrong with each bad file met so far, by name; others were taken in their place.
    decoder: what decodes JPEG files, for people.
    """

    def __init__(
        self,
        source: Images,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
        seed: int = 0,
        workers: int = 0,
        image_size: int = 224,
        distance: Distance = "image",
        crop_min: float = 0.08,
        max_bad: float = 0.01,
        pin_memory: bool = False,
        decode_on: torch.device | None = None,
        start_method: str | None = None,
    ) -> None:
        if seed < 0:
            raise UserError(f"seed {seed} is negative; expected 0 or more")
        if decode_on is not None and decoder_for(decode_on) is None:
            raise UserError(
                f"--decode gpu: neither torchcodec nor torchvision decodes JPEG files on {decode_on} here; "
                "`pip install torchcodec`, or leave it out, and the workers decode"
            )
        self.source, self.workers, self.decoder = source, workers, decoder_name(decode_on or CPU)
        self.order = MicroBatches(len(source), batch_size, rank, world_size, accumulation, seed)
        self._bad = BadFiles(source, max_bad)
        self.bad_files = self._bad.reasons
        self._read_any = False  # so far: images that vanish later are not the user's mistake
        kind = Samples if decode_on is None else EncodedSamples
        samples = kind(source, seed, image_size, distance, (crop_min, 1.0))
        self._batches: Iterable = WorkerLoader(
            samples,
            batch_sampler=self.order,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            worker_init_fn=functools.partial(_prepare_worker, os.getpid()),
            multiprocessing_context=start_method if workers else None,
        )
        if decode_on is not None and isinstance(samples, EncodedSamples):
            self._batches = Finished(self._batches, samples, decode_on)

    def __len__(self) -> int:
        """Global steps in an epoch; each is `accumulation` micro-batches."""
        return self.order.steps

    def set_position(self, epoch: int, step: int = 0) -> None:
        """Start the next iteration at a global step of an epoch; nothing before it is read or decoded."""
        assert epoch >= 0 and 0 <= step <= len(self)
        self.order.epoch, self.order.step = epoch, step

    def __iter__(self) -> Iterator[Batch]:
        seen = bad = 0
        try:
            for batch in self._batches:
                seen += len(batch.index)
                self._read_any = True
                if batch.replaced.any():
                    found = batch.index[batch.replaced].tolist()
                    bad += len(found)
                    self._bad.note(found, seen, bad)
                yield batch
        except NothingReadable as error:
            name = str(error).rsplit("NothingReadable: ", 1)[-1].strip()
            kind = MachineFailed if self._read_any else UserError
            raise kind(
                f"{printable(name)} and every image tried in its place cannot be read; is the data still there?"
            ) from None
        except (RuntimeError, ConnectionError, EOFError) as error:  # the last two: it died while it handed over a batch
            of_worker = str(error).startswith("DataLoader worker (pid") or "shared memory(shm)" in str(error)
            if isinstance(error, RuntimeError) and not of_worker:
                raise
            raise MachineFailed(
                f"a data worker died ({first_line(error)[:120]}); most often memory or /dev/shm is full: "
                "give the machine or container more, or use fewer --workers"
            ) from None


class BadFiles:
    """The bad files that this process has met; reasons: what is wrong with each, by name."""

    def __init__(self, source: Images, max_bad: float) -> None:
        self.source, self.max_bad = source, max_bad
        self.reasons: dict[str, str] = {}
        self._indices: set[int] = set()

    def note(self, found: list[int], seen: int, bad: int) -> None:
        """Name those of `found` that are new; raise UserError with the list when they are too many.

        seen, bad: samples of this epoch so far, and how many of them were bad.
        """
        for index in found:
            if index in self._indices:
                continue
            self._indices.add(index)
            name, reason = printable(self.source.name(index)), why_bad(self.source, index)
            self.reasons[name] = reason
            LOG.warning("bad image file, another one is used in its place: %s (%s)", name, reason)
        # Of a part of the data only a rate is known; five standard deviations above the limit are no accident.
        expected = self.max_bad * seen
        if len(self._indices) > self.max_bad * len(self.source) or bad > expected + 5 * math.sqrt(expected) + 5:
            listed = "; ".join(f"{name} ({reason})" for name, reason in list(self.reasons.items())[:LISTED])
            more = len(self._indices) - LISTED
            raise UserError(
                f"{len(self._indices)} bad image files of {len(self.source)}, more than the allowed share of "
                f"{self.max_bad:g}: {listed}{f'; and {more} more' if more > 0 else ''}; "
                "remove or repair them, or allow more with --max_bad"
            )


def why_bad(source: Images, index: int) -> str:
    """What is wrong with a file."""
    try:
        decode(source.read(index))
    except BadImage as error:
        return printable(str(error))
    return "could not be read a moment ago, can be now"


class WorkerLoader(DataLoader):
    """A DataLoader whose workers start with SIGTERM blocked, so that no thread of theirs takes it (`_obey` does).

    Libraries start threads in a new process before `_prepare_worker` runs; they keep the mask they are born with.
    """

    def __iter__(self) -> Any:  # an iterator of a private class of torch
        if not hasattr(signal, "sigwaitinfo"):
            return super().__iter__()
        before, on_death = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}), signal.getsignal(signal.SIGCHLD)
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            # torch's handler would raise the death of a worker in the midst of a step; the next batch tells it as well.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGCHLD, on_death)


def _as_it_is(batch: Any) -> Any:  # the whole micro-batch of `__getitems__`, where torch expects a list of samples
    return batch


def _prepare_worker(trainer: int, worker: int) -> None:
    """Leave signals that ask the run to stop to the training process: it needs the workers to finish its step."""
    for asks_to_stop in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(asks_to_stop, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # tells who sent it; not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(trainer,), daemon=True).start()


def _obey(trainer: int) -> None:
    """End this worker when the training process says SIGTERM, not when a scheduler says it to everybody."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)
