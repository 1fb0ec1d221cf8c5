"""Keeps the C library from handing memory back to the system between steps.

On CPU a step's temporary arrays, gigabytes of them, are allocated and freed by every step. By
default glibc returns such blocks to the system at once, and the next step pays for a page fault
every 4 KiB: a quarter of the step's time where faults are dear (virtual machines).
"""

from __future__ import annotations

import ctypes

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8


def keep_freed_memory() -> bool:
    """Lets freed memory serve the next allocation; whether the C library could be told.

    Takes effect for threads started after it, so call it before JAX or TensorFlow is imported.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
    done = [mallopt(parameter, value) for parameter, value in settings]
    return all(done)
