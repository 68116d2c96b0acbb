"""Fast kernels, or the same bits on each run: what torch has to be told for either."""

import os

import torch


def choose_kernels(*, deterministic: bool) -> None:
    """Choose how GPUs compute, before the first use of one: the same bits on each run, or as fast as they can.

    CPUs give the same bits anyway. Equal bits need equal GPUs, software and number of processes, too.
    """
    if not deterministic:
        torch.backends.cudnn.benchmark = True  # tries its kernels at the first step: all steps have the same shapes
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
