"""What belongs to a worker process and is shared by its shards: the model, the thread pools, the byte budget."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from transforms.errors import EnvironmentFault
from transforms.monitor import Monitor
from transforms.steps import Step

FETCH_THREADS = 16  # they wait for stores, not for the processor
UPLOAD_THREADS = 16
BYTES_IN_FLIGHT = 256 << 20  # of rows read and not yet through the model, over all shards of a process
ROWS_BEFORE_RATE = 1000  # the share of rejected rows says nothing before


class ByteBudget:
    """Bounds the bytes in flight. One batch is always let through, however big."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._changed = threading.Condition()

    def acquire(self, size: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + size <= self._limit)
            self._used += size

    def release(self, size: int) -> None:
        with self._changed:
            self._used -= size
            self._changed.notify_all()


class RejectionRate:
    """Rows read and rejected by a process; `add` raises once too many of them are bad."""

    def __init__(self, max_error_rate: float) -> None:
        self._max = max_error_rate
        self._read = 0
        self._rejected = 0
        self._lock = threading.Lock()

    def add(self, read: int, rejected: int) -> None:
        with self._lock:
            self._read += read
            self._rejected += rejected
            if self._read >= ROWS_BEFORE_RATE and self._rejected > self._max * self._read:
                raise EnvironmentFault(
                    f"{self._rejected} of {self._read} rows rejected so far, more than --max_error_rate {self._max:g}: "
                    "see _vqbeam/errors of the shards that are done, and the reasons above"
                )


class Resources:
    """Owned by the process that runs shards; threads of it share one instance."""

    def __init__(self, steps: list[Step], *, decode_threads: int, max_error_rate: float, monitor: Monitor) -> None:
        self.decode_pool = ThreadPoolExecutor(decode_threads, "vqbeam-decode")
        self.fetch_pool = ThreadPoolExecutor(FETCH_THREADS, "vqbeam-fetch")
        self.upload_pool = ThreadPoolExecutor(UPLOAD_THREADS, "vqbeam-upload")
        self.budget = ByteBudget(BYTES_IN_FLIGHT)
        self.rate = RejectionRate(max_error_rate)
        self.monitor = monitor
        self._steps = steps  # one a device; a shard takes the one with the fewest shards on it
        self._shards_on = [0] * len(steps)
        self._ready = [threading.Lock() for _ in steps]
        self._loaded = [False] * len(steps)
        self._lock = threading.Lock()

    @contextmanager
    def step(self) -> Iterator[Step]:
        """The model step of one device for the duration of a shard, its weights loaded once."""
        with self._lock:
            number = self._shards_on.index(min(self._shards_on))
            self._shards_on[number] += 1
        try:
            with self._ready[number]:
                if not self._loaded[number]:
                    self._steps[number].setup()
                    self._loaded[number] = True
            yield self._steps[number]
        finally:
            with self._lock:
                self._shards_on[number] -= 1

    def close(self) -> None:
        for pool in (self.fetch_pool, self.decode_pool, self.upload_pool):
            pool.shutdown(wait=False, cancel_futures=True)
