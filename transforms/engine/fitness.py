"""Whether a worker process is fit for more shards.

A worker without its GPU, or with a full disk, fails each shard within a second, and so eats up the work of others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from transforms.errors import Stopped, WorkerUnfit

TOLERATED = 3  # shards in a row that fail for reasons of the worker
FIRST_WAIT, LONGEST_WAIT, ALL_WAITS = 10.0, 300.0, 1800.0  # seconds
LOOK_SECONDS = 0.5


class Fitness:
    """Counts the shards in a row that failed because of the worker. From the third on, a process waits before it takes
    another one, longer each time, so that others may; after half an hour in all it takes none any more, and leaves
    what it is given to the next run. `alone`: on the machine of the launcher nobody takes what it leaves, and it does
    not wait. Threads may share it."""

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone
        self._lock = threading.Lock()
        self._in_a_row = 0
        self._waited = 0.0

    def note(self, error: BaseException | None) -> None:
        """A shard ended well, or with an error."""
        with self._lock:
            self._in_a_row = self._in_a_row + 1 if isinstance(error, WorkerUnfit) else 0
            if self._in_a_row == 0:
                self._waited = 0.0

    def require(self, stop_requested: Callable[[], bool]) -> None:
        """Wait if shards have failed lately; raises `Stopped` once this process is to take none any more."""
        with self._lock:
            over = self._in_a_row - TOLERATED
            if over < 0:
                return
            wait = min(FIRST_WAIT * 2**over, LONGEST_WAIT)
            if self._alone or self._waited + wait > ALL_WAITS:
                raise Stopped
            self._waited += wait
        end = time.monotonic() + wait
        while (left := end - time.monotonic()) > 0:
            if stop_requested():
                raise Stopped
            time.sleep(min(left, LOOK_SECONDS))
