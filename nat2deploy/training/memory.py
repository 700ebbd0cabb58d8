"""The C library's allocator, told to keep what training frees."""

from __future__ import annotations

import ctypes
from functools import cache

# malloc.h: parameters of mallopt, and the largest threshold that glibc takes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_THRESHOLD = 32 * 2**20


@cache
def keep_freed_memory() -> bool:
    """Let glibc serve activations of up to 32 MiB from memory that the process already has.

    By default each such block is mapped and unmapped anew, and its pages are faulted in at every step: up to
    a fifth of a training step on a CPU. Returns whether the C library took it; others are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    taken: int = mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    return bool(taken)
