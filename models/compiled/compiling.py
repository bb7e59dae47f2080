"""How functions become machine code, and with how many threads it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

Array = Any  # numpy arrays, whose types numba finds by itself. bfloat16 is the upper half of a float32, as uint16


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """`function` as machine code of this process.

    It is not kept for later ones: what numba loads from its cache can round differently from what it has just compiled.
    """
    options |= {"nogil": True, "error_model": "numpy"}  # a division by nothing gives no number, and no exception
    options |= {"fastmath": {"reassoc", "contract", "nsz"}}  # what is no number stays none
    return numba.njit(**options)(function)


def compiled_for_threads(function: Callable[..., Any]) -> Any:
    return compiled(function, parallel=True)


def most_threads() -> int:
    return int(numba.config.NUMBA_NUM_THREADS)


def use_threads(wanted: int) -> int:
    """The number of threads, at most `wanted`, that numba is told for this thread; results are the same for any."""
    threads = min(wanted, most_threads())
    numba.set_num_threads(threads)
    return threads
