"""A training process -> the loader of its part of the images, with its share of the machine's cores."""

import math
import os
import tempfile
from typing import Any, Literal

from pixpro.data import Loader
from pixpro.data.cores import share_cores
from pixpro.errors import UserError
from pixpro.images import Images
from pixpro.training.machine import use_threads
from pixpro.training.processes import Process

SOCKET_NAME = 107  # bytes, unix(7)
STRIDE = 32  # pixels of an image, along a side, for each cell of the coarsest map


def loader_for(
    process: Process, source: Images, *, workers: int, decode: Literal["cpu", "gpu"], **settings: Any
) -> Loader:
    """This process's loader, with the workers that its share of the cores allows.

    PyTorch gets the threads that those would leave over, a side effect on the whole process: see `use_threads`.
    Beside a GPU the workers start from a server without threads; a fork would copy the locks of CUDA's and NCCL's.
    workers: -1 chooses from the cores. settings: as in `Loader`. UserError when a GPU is to decode and none is.
    """
    on_gpu = process.device.type == "cuda"
    if decode == "gpu" and not on_gpu:
        raise UserError("--decode gpu: no GPU found; leave it out, and the workers decode")
    chosen, threads = share_cores(process.local_world_size, on_gpu)
    use_threads(threads)
    workers = chosen if workers < 0 else workers
    if workers:
        require_short_names(tempfile.gettempdir())
    return Loader(
        source,
        rank=process.rank,
        world_size=process.world_size,
        workers=workers,
        pin_memory=on_gpu,
        decode_on=process.device if decode == "gpu" else None,
        start_method="forkserver" if on_gpu else None,
        **settings,
    )


def require_short_names(folder: str) -> None:
    """UserError when sockets in a folder for temporary files would have names that the system refuses.

    Loader workers hand over their batches through them; without, the run would wait for ever.
    """
    longest = SOCKET_NAME - len("/pymp-xxxxxxxx/listener-xxxxxxxx")
    if len(os.fsencode(folder)) > longest:
        raise UserError(
            f"the folder for temporary files has a name of {len(os.fsencode(folder))} bytes, loader workers need one "
            f"of at most {longest} ({folder}); set TMPDIR to a shorter one, or use --workers 0"
        )


def require_statistics(images: int, side: int, what: str) -> None:
    """UserError when BatchNorm would see one value per channel, which has no variance.

    images: how many crops, of so many pixels a side, it sees at once.
    """
    if images * math.ceil(side / STRIDE) ** 2 < 2:
        raise UserError(
            f"{what}: one crop of {side} pixels leaves BatchNorm one value per channel, which has no variance; "
            "give it more images or a larger --image_size"
        )
