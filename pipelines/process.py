"""Settings of the C library's allocator for a process that runs a network on a CPU."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # glibc's malloc.h
LARGEST = 1 << 28  # bytes of one array of activations; what is larger still comes from and goes to the system
KEPT = 1 << 30  # bytes of free memory that the process holds on to


def reuse_freed_memory() -> bool:
    """Has glibc keep freed memory for the next layer; to be called before a process starts its first thread.

    By default each array above 32 MiB is mapped and unmapped anew, and its pages are cleared by the kernel
    (`benchmarks.encode --peers_reuse_memory` shows what that costs a network). Arenas of threads cannot hold such
    arrays, so there is one arena.
    False, with nothing changed, where the C library is another.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = ((M_MMAP_THRESHOLD, LARGEST), (M_TRIM_THRESHOLD, KEPT), (M_ARENA_MAX, 1))
    return all(library.mallopt(name, value) == 1 for name, value in settings)
