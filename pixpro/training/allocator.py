"""Memory that one step frees, kept for the next: what the C library has to be told on a CPU."""

import ctypes

# Numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = -1


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
