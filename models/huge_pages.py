"""Large pages of memory under the weights and caches that a CPU reads over and over."""

from __future__ import annotations

import ctypes
from pathlib import Path

HUGE = 1 << 21  # bytes, of a large page
MADV_COLLAPSE = 25  # Linux 6.1


def collapse_into_huge_pages() -> int:
    """Move the large arrays that this process has now into pages of 2 MiB; the bytes that were moved.

    With pages of 4 KiB a product of few rows waits for address translation (`benchmarks/products.py` says how long).
    Does nothing, and returns 0, where the system cannot.
    """
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return 0
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    moved = 0
    for line in maps.read_text().splitlines():
        span, permissions, _, _, inode, *name = line.split(maxsplit=5)
        if not permissions.startswith("rw") or inode != "0" or (name and name[0] != "[heap]"):
            continue
        first, last = (int(address, 16) for address in span.split("-"))
        first, last = -(-first // HUGE) * HUGE, last // HUGE * HUGE
        if first < last and madvise(first, last - first, MADV_COLLAPSE) == 0:
            moved += last - first
    return moved
