"""Batches on their way to the device: the next one is copied while the present one is being used."""

from collections.abc import Iterable, Iterator

import torch

from pixpro.data.samples import Batch
from pixpro.data.views import View


def copy_stream(device: torch.device) -> torch.cuda.Stream | None:
    """The stream on which a trainer's batches are copied; None where nothing is.

    One for all epochs: memory that was allocated on a stream is kept for that stream.
    """
    return torch.cuda.Stream(device) if device.type == "cuda" else None


def prefetch(
    batches: Iterable[Batch], device: torch.device, stream: torch.cuda.Stream | None = None
) -> Iterator[Batch]:
    """The same batches on the device; on CUDA copied from pinned memory on a stream of their own, one ahead.

    `index` and `replaced` stay on the CPU, where their readers are.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = stream or torch.cuda.Stream(device)
    ready: tuple[Batch, torch.cuda.Event] | None = None
    arriving = iter(batches)
    while True:
        with torch.cuda.stream(stream):  # what makes the batch, too: a GPU that decodes does so beside the step
            batch = next(arriving, None)
            moved = batch and _moved(batch, device)
            copied = stream.record_event()
        if ready is not None:
            yield _handed_over(*ready, device)
        if moved is None:
            return
        ready = moved, copied


def _moved(batch: Batch, device: torch.device) -> Batch:
    view1, view2 = (View(*(t.to(device, non_blocking=True) for t in view)) for view in batch[:2])
    colour1, colour2 = (colour.to(device, non_blocking=True) for colour in batch[2:4])
    return Batch(view1, view2, colour1, colour2, batch.index, batch.replaced)


def _handed_over(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    """The batch, safe to use on the present stream."""
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    for tensor in (*batch.view1, *batch.view2, batch.colour1, batch.colour2):
        tensor.record_stream(current)  # its memory must not be given away before this stream is done with it
    return batch
