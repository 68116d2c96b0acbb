"""What torch and the C library are told before the first step: device, kernels, precision, threads, memory."""

import contextlib
import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import torch

from pixpro.errors import UserError

# Numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = -1


def require_usable_gpus() -> None:
    """UserError where there is an NVIDIA GPU that this torch cannot use: training on the CPU would take weeks instead.

    CUDA_VISIBLE_DEVICES= (empty) says that the CPU is meant.
    """
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            require_kernels(torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index))
        return
    if os.environ.get("CUDA_VISIBLE_DEVICES", "unset") in ("", "-1"):
        return
    if found := nvidia_gpu():
        raise UserError(
            f"{found}, but torch {torch.__version__} cannot use it ({why_unusable()}): update the driver or install a "
            "torch that suits it (docs/set-up.md); to train on the CPU, set CUDA_VISIBLE_DEVICES= (empty)"
        )


def require_kernels(name: str, capability: tuple[int, int]) -> None:
    """UserError when this torch has no code for a GPU of that compute capability."""
    built = [arch.partition("_") for arch in torch.cuda.get_arch_list()]
    versions = [(kind, divmod(int("".join(filter(str.isdigit, number))), 10)) for kind, _, number in built]
    # Machine code runs on later chips of its generation, intermediate code on all later ones.
    if not versions or any(
        v <= capability if kind == "compute" else v[0] == capability[0] and v <= capability for kind, v in versions
    ):
        return
    listed = ", ".join(torch.cuda.get_arch_list())
    raise UserError(
        f"{name} has compute capability {capability[0]}.{capability[1]}, and torch {torch.__version__} is built for "
        f"{listed}: install a torch with code for it (docs/set-up.md), or set CUDA_VISIBLE_DEVICES= (empty) for the CPU"
    )


def nvidia_gpu() -> str:
    """What shows that this machine has an NVIDIA GPU, in words; "" when nothing does."""
    if devices := sorted(Path("/dev").glob("nvidia[0-9]*")):
        return f"this machine has an NVIDIA GPU ({devices[0]})"
    if not shutil.which("nvidia-smi"):
        return ""
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return f"nvidia-smi finds {told.split('(')[0].strip()}" if told.startswith("GPU ") else ""


def why_unusable() -> str:
    """What is known about why torch sees no GPU."""
    if torch.version.cuda is None:
        return "it is built without CUDA"
    words: list[str] = []
    with contextlib.suppress(OSError):
        words = Path("/proc/driver/nvidia/version").read_text().split()
    driver = next((word for word in words if word[:1].isdigit() and "." in word), "unknown")
    return f"it is built for CUDA {torch.version.cuda}, the driver's version is {driver}"


def choose_kernels(*, deterministic: bool) -> None:
    """Choose how GPUs compute, before the first use of one: the same bits on each run, or as fast as they can.

    CPUs give the same bits anyway. Equal bits need equal GPUs, software and number of processes, too. float32 is
    float32 on either: torch would round the inputs of convolutions, though not of matrix products, to TF32; who
    wants speed takes bf16.
    """
    torch.backends.cudnn.allow_tf32 = False
    if not deterministic:
        torch.backends.cudnn.benchmark = True  # tries its kernels at the first step: all steps have the same shapes
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)


def use_threads(threads: int) -> None:
    """Compute on so many threads, unless OMP_NUM_THREADS says otherwise.

    torchrun sets it to 1 for programs that do not choose; that is not the user's word.
    """
    given = os.environ.get("OMP_NUM_THREADS")
    if given is None or (given == "1" and "TORCHELASTIC_RUN_ID" in os.environ):
        torch.set_num_threads(threads)


def keep_freed_memory() -> bool:
    """Let this process, and those it forks, keep what they free; returns whether the C library can.

    By default glibc gives large tensors back to the system as they are freed, and each step pays for new pages, which
    the system clears. Kept, they leave holes between them: the process holds up to a third more than its tensors at
    their most (benchmarks/RESULTS.md). Other C libraries are left as they are. See mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # none of that name; no library to look in
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, NEVER))
