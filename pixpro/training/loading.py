"""A training process -> the loader of its part of the images, with its share of the machine's cores."""

from typing import Any, Literal

import torch

from pixpro.data import Loader, make_loader
from pixpro.data.cores import share_cores
from pixpro.errors import UserError
from pixpro.images import Images
from pixpro.training.distributed import Process


def loader_for(
    process: Process, source: Images, *, workers: int, decode: Literal["cpu", "gpu"], **settings: Any
) -> Loader:
    """This process's loader; PyTorch gets the threads that the workers leave over.

    workers: -1 chooses from the cores. settings: as in `make_loader`. UserError when a GPU is to decode and none is.
    """
    on_gpu = process.device.type == "cuda"
    if decode == "gpu" and not on_gpu:
        raise UserError("--decode gpu: no GPU found; leave it out, and the workers decode")
    chosen, threads = share_cores(process.local_world_size, on_gpu)
    torch.set_num_threads(threads)
    return make_loader(
        source,
        rank=process.rank,
        world_size=process.world_size,
        workers=chosen if workers < 0 else workers,
        pin_memory=on_gpu,
        decode_on=process.device if decode == "gpu" else None,
        **settings,
    )
