"""Functions as machine code by numba, kept for later processes."""

from __future__ import annotations

from typing import Any

import numba


def compiled(function: Any, **options: Any) -> Any:
    """Machine code that is kept for later processes if a folder can be written; it does not hold the GIL."""
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that can be written
        return numba.njit(**options)(function)
