"""What a program does -> done in this process or in several on this machine, with one exit code."""

import os
from collections.abc import Callable
from datetime import timedelta

import torch

from pixpro.errors import UserError
from pixpro.run.outcome import outcome, say
from pixpro.training import distributed
from pixpro.training.distributed import Process


def processes_to_start(several: bool, nproc: int) -> int:
    """How many processes to start on this machine; one under torchrun, which has started them.

    several: whether more than one is wanted. nproc: how many, 0 for one per GPU.
    """
    if not several or "RANK" in os.environ:
        return 1
    gpus = torch.cuda.device_count()
    if gpus == 0:
        print(f"no GPU found: training on the CPU with {nproc or 1} process(es), see --nproc")
    return nproc or gpus or 1


def in_group(work: Callable[[Process], None], timeout: float) -> int:
    """Meet the other processes, if there are any, and work with them; returns this process's exit code.

    timeout: minutes to wait for another one.
    """
    try:
        process = distributed.join(timedelta(minutes=timeout))
    except UserError as error:
        return say(error)
    code = outcome(lambda: work(process), process)
    distributed.leave()
    return code
