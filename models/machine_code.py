"""Functions as machine code by numba, kept for later processes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numba

Array = Any  # numpy arrays, whose types numba finds by itself. bfloat16 is the upper half of a float32, as uint16


def hash_of(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def compiled(function: Any, *, read: str = "") -> Any:
    """Machine code that is kept for later processes if a folder can be written; it does not hold the GIL.

    No option lets the compiler choose how sums and products are rounded: its choice depends on the code around them, so
    a process that compiles and one that loads would differ. Operations that may be fused or reordered are written so.

    numba looks for changes only in the file of the function: if it calls functions of other files, `read` has their
    hash, which becomes a part of the kept code's name.
    """
    options = {"nogil": True, "error_model": "numpy"}  # a division by zero gives NaN or infinity, and no exception
    if read:
        function.__qualname__ = f"{function.__name__}_{read}"
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that can be written
        return numba.njit(**options)(function)
