"""Freed memory that lies in gaps: a worker process gives it back between batches, once it holds more than they need."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

STATM = Path("/proc/self/statm")  # Linux: sizes of this process in pages, the second is what is resident
TOLERATED = 1.03  # of what one batch needs; less would have a batch of large arrays fault its memory in again and again


class FreedMemory:
    """To be told of the end of every batch by all threads that run a model.

    glibc keeps what a batch frees for the next (`pipelines/process.py`). But the small pieces that each thread
    puts aside for itself are not joined to the gaps beside them; before glibc 2.39 those are also the slivers that are
    cut off every aligned array (https://sourceware.org/bugzilla/show_bug.cgi?id=30723). So gaps get too short for an
    array of the same size, which ends up behind them, and a process grows for thousands of batches though it holds
    nothing. Once the gaps are given back, the next batch has a page fault for each page that it uses, a fraction of
    what a fault in each layer would cost; hence only after growth. Where there is no glibc, nothing is done.
    """

    def __init__(self) -> None:
        self._give_back = getattr(ctypes.CDLL(None), "malloc_trim", None) if STATM.exists() else None
        self._needed = 0  # pages resident after the first batch since memory was given back; 0 before that
        self._lock = threading.Lock()

    def after_batch(self) -> None:
        """Give back the gaps if this process has grown since the last time."""
        if self._give_back is None:
            return
        with self._lock:
            resident = int(STATM.read_text(encoding="ascii").split()[1])
            if not self._needed:
                self._needed = resident
            elif resident > TOLERATED * self._needed:
                self._give_back(0)
                self._needed = 0
