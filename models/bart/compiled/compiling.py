"""Compiles functions to machine code that later processes find in a cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

Array = Any  # numpy arrays, whose types numba finds by itself. bfloat16 is the upper half of a float32, as uint16
FOLDER = Path(__file__).parent
READ = [*sorted(FOLDER.glob("*.py")), FOLDER.parent / "network.py"]  # NORM_EPS is compiled too
SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in READ))


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """`function` as machine code, which is kept for later processes if a folder can be written.

    No option lets the compiler choose how sums and products are rounded: its choice depends on the code around them, so
    a process that compiles and one that loads would differ. Operations that may be fused or reordered are written so.

    numba looks for changes only in the file of the function, not in those of the functions that it calls, so the name
    of the cached code has a hash of all files.
    """
    options |= {"nogil": True, "error_model": "numpy"}  # a division by zero gives NaN or infinity, and no exception
    function.__qualname__ = f"{function.__name__}_{SOURCES.hexdigest()[:12]}"
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that can be written
        return numba.njit(**options)(function)


def compiled_for_threads(function: Callable[..., Any]) -> Any:
    return compiled(function, parallel=True)


def most_threads() -> int:
    return int(numba.config.NUMBA_NUM_THREADS)


def use_threads(wanted: int) -> int:
    """Set numba's number of threads, at most `wanted`, and return it. Compiled functions do not round by it."""
    threads = min(wanted, most_threads())
    numba.set_num_threads(threads)
    return threads
