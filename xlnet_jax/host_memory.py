"""Keeps the memory that a step on CPU frees for the next step.

On CPU a step's temporary arrays, gigabytes of them, are allocated and freed by every step. By
default glibc returns such blocks to the system at once, and the next step pays for a page fault
every 4 KiB: a quarter of the step's time where faults are dear (virtual machines).

glibc keeps large blocks in the heap of the main thread alone; those of other threads hold 64 MiB
at most. JAX by default allocates and runs a step in a thread of its own, and may begin the next
before the memory of the last one is free. So here it runs them in the thread that calls.
"""

from __future__ import annotations

import ctypes

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Lets freed memory serve the next allocation; whether the C library could be told."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
    done = [mallopt(parameter, value) for parameter, value in settings]
    return all(done)


def keep_memory_of_steps() -> bool:
    """The same for what JAX allocates on CPU, in programs that run steps in their main thread.

    Takes effect if called before JAX first looks for devices. Other kinds of devices work as ever.
    """
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return keep_freed_memory()
