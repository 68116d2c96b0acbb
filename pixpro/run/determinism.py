"""The same bits on each run: what torch has to be told for it."""

import os

import torch


def make_deterministic() -> None:
    """Choose deterministic kernels on GPUs, before the first use of one; CPUs compute so anyway.

    Equal bits need equal GPUs, software and number of processes, too.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
