"""Batches on their way to the device: the next one is copied while the present one is being used."""

from collections.abc import Iterable, Iterator

import torch

from pixpro.data.samples import Batch
from pixpro.data.views import View


def prefetch(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches on the device; on CUDA copied from pinned memory on a stream of their own, one ahead.

    `index` and `replaced` stay on the CPU, where their readers are.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)
    ready: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            moved = _moved(batch, device)
            copied = stream.record_event()
        if ready is not None:
            yield _handed_over(*ready, device)
        ready = moved, copied
    if ready is not None:
        yield _handed_over(*ready, device)


def _moved(batch: Batch, device: torch.device) -> Batch:
    view1, view2 = (View(*(t.to(device, non_blocking=True) for t in view)) for view in batch[:2])
    colours = (colour.to(device, non_blocking=True) for colour in batch[2:4])
    return Batch(view1, view2, *colours, batch.index, batch.replaced)


def _handed_over(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    """The batch, safe to use on the present stream."""
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    for tensor in (*batch.view1, *batch.view2, batch.colour1, batch.colour2):
        tensor.record_stream(current)  # its memory must not be given away before this stream is done with it
    return batch
