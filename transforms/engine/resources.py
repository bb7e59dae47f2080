"""The resources of a worker process, which its shards share: GPUs, model steps, thread pools, memory, disk space."""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from models.errors import ModelError
from transforms import storage
from transforms.engine.fitness import Fitness
from transforms.engine.monitor import Monitor
from transforms.engine.tally import Pacer
from transforms.engine.worker_folder import worker_folder
from transforms.errors import ShardFailed, TooManyRejected, UsageError, WorkerUnfit
from transforms.inputs.dead_hosts import DeadHosts
from transforms.work.step import Step

UNBOUNDED = 1 << 20
log = logging.getLogger("vqbeam")
FETCH_THREADS = 16  # they wait for stores, not for the processor
UPLOAD_THREADS = 16
BYTES_IN_FLIGHT = 256 << 20  # of rows read and not yet through the model, over all shards of a process
ROOM_PER_SHARD = 256 << 20  # bytes of temporary files; a shard that needs more than the disk has fails by itself
ROWS_BEFORE_RATE = 1000  # rows read before their rejected share is judged
STATM = Path("/proc/self/statm")  # Linux: sizes of this process in pages, of which the second is resident
TOLERATED = 1.03  # of the memory of one batch; with less, each batch of large arrays would fault its memory in anew


class ByteBudget:
    """Bounds the bytes in flight over all shards of a process. One batch is always let through, however big."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._changed = threading.Condition()

    def share(self) -> BudgetShare:
        return BudgetShare(self)


class BudgetShare:
    """The bytes that one shard holds of the budget; `close` gives all of them back and ends a wait for more."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._held = 0
        self._closed = False

    def acquire(self, size: int) -> bool:
        """Wait until there is room; False if the share was closed meanwhile."""
        budget = self._budget
        with budget._changed:
            budget._changed.wait_for(lambda: self._closed or not budget._used or budget._used + size <= budget._limit)
            if not self._closed:
                self._change(size)
            return not self._closed

    def release(self, size: int) -> None:
        with self._budget._changed:
            if not self._closed:
                self._change(-size)

    def close(self) -> None:
        with self._budget._changed:
            self._change(-self._held)
            self._closed = True

    def _change(self, size: int) -> None:
        self._held += size
        self._budget._used += size
        self._budget._changed.notify_all()


class RejectionRate:
    """Rows read and rejected by a process; `add` raises once too many of them are bad."""

    def __init__(self, max_error_rate: float) -> None:
        self._max = max_error_rate
        self._read = 0
        self._rejected: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, read: int, rejected: Mapping[str, int]) -> None:
        """`rejected` counts rows by error code."""
        with self._lock:
            self._read += read
            self._rejected.update(rejected)
            bad = self._rejected.total()
            if self._read >= ROWS_BEFORE_RATE and bad > self._max * self._read:
                codes = ", ".join(f"{count} {code}" for code, count in self._rejected.most_common())
                raise TooManyRejected(
                    f"{bad} of {self._read} rows rejected so far ({codes}), more than max_error_rate {self._max:g}"
                )


def require_room(folder: str | None, shards: int = 1) -> None:
    """Raise `WorkerUnfit` if the disk of temporary files (None: the system's) lacks room for so many shards."""
    folder = folder or tempfile.gettempdir()
    needed = shards * ROOM_PER_SHARD
    free = storage.free_bytes(folder)
    if free < needed:
        raise WorkerUnfit(
            f"{folder} has {free / 1e9:.1f} GB free, the shards in flight need about {needed / 1e9:.1f} GB: "
            "free some space or choose another temp_dir"
        )


class FreedMemory:
    """Gives memory back to the system between batches, once the process holds more than they need.

    All threads that run a model call `after_batch`.

    glibc keeps what a batch frees for the next (`pipelines/process.py`). But the small pieces that each thread
    puts aside for itself are not joined to the gaps beside them; before glibc 2.39 those are also the slivers that are
    cut off every aligned array (https://sourceware.org/bugzilla/show_bug.cgi?id=30723). So gaps get too short for an
    array of the same size, which ends up behind them, and a process grows for thousands of batches though it holds
    nothing. Once the gaps are given back, the next batch has a page fault for each page that it uses, a fraction of
    what a fault in each layer would cost; hence only after growth. Without glibc nothing is done.
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


class Resources:
    """The threads of a process that runs shards share one instance."""

    def __init__(
        self,
        steps: list[Step],
        *,
        decode_threads: int,
        max_error_rate: float,
        monitor: Monitor,
        calls: int | None = None,
        alone: bool = True,
    ) -> None:
        """`decode_threads` 0 are as many as there are cores. So many shards at once as `calls` may run a step; None:
        any number. `alone` as in `Fitness`."""
        self.decode_pool = ThreadPoolExecutor(decode_threads or cores(), "vqbeam-decode")
        self.fetch_pool = ThreadPoolExecutor(FETCH_THREADS, "vqbeam-fetch")
        self.upload_pool = ThreadPoolExecutor(UPLOAD_THREADS, "vqbeam-upload")
        self.budget = ByteBudget(BYTES_IN_FLIGHT)
        self.rate = RejectionRate(max_error_rate)
        self.dead_hosts = DeadHosts()
        self.memory = FreedMemory()
        self.fitness = Fitness(alone=alone)
        self.monitor = monitor
        self.pacer = Pacer(monitor)
        self._steps = steps  # one a device; a shard takes the one with the fewest shards on it
        self._shards_on = [0] * len(steps)
        self._calls = {id(step): threading.BoundedSemaphore(calls or UNBOUNDED) for step in steps}
        self._ready = [threading.Lock() for _ in steps]
        self._loaded = [False] * len(steps)
        self._lock = threading.Lock()
        self._folder: str | None = None

    def calling(self, step: Step) -> AbstractContextManager[object]:
        """A context to run a step in. Engines begin several shards at once, whatever the cores: each batch that is in a
        network at once has its own activations, and threads that wait for one another."""
        return self._calls[id(step)]

    def folder(self, parent: str | None) -> str:
        """The folder of this process for temporary files, under `parent`; made at the first call."""
        with self._lock:
            if self._folder is None:
                self._folder = worker_folder(parent)
            return self._folder

    @contextmanager
    def step(self) -> Iterator[Step]:
        """The model step of one device for the duration of a shard, its weights loaded once."""
        with self._lock:
            number = self._shards_on.index(min(self._shards_on))
            self._shards_on[number] += 1
        try:
            with self._ready[number]:
                if not self._loaded[number]:
                    with _of_the_worker(), self.pacer.loading():
                        self._steps[number].setup()
                    self._loaded[number] = True
                    self.monitor.add(models_loaded=1)
            yield self._steps[number]
        finally:
            with self._lock:
                self._shards_on[number] -= 1


@contextmanager
def _of_the_worker() -> Iterator[None]:
    """Re-raises errors as `WorkerUnfit`, but for those of stores, which may pass."""
    try:
        yield
    except ShardFailed:
        raise
    except (UsageError, ModelError) as error:
        raise WorkerUnfit(str(error)) from error
    except Exception as error:
        log.exception("the model cannot be loaded")
        raise WorkerUnfit(f"{type(error).__name__}: {error}") from error


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_CLAIMS: list[int] = []  # open, hence locked, for as long as the process lives


def claim_gpus(count: int, processes: int, folder: str | None = None) -> list[int]:
    """The GPUs, of `count`, for one of `processes` worker processes: an equal share, at least one, none left over.

    Processes share GPUs evenly if there are fewer of these. A claim is a locked file, held until the process ends.
    """
    home = Path(folder or tempfile.gettempdir())
    shares = min(count, max(1, processes))
    turn = 0
    while True:
        for share in range(shares):
            if _claim(home / f"vqbeam-gpus-{os.getuid()}-{count}-{shares}-{share}-{turn}.lock"):
                return list(range(share * count // shares, (share + 1) * count // shares))
        turn += 1


def _claim(path: Path) -> bool:
    """Lock a file for as long as the process lives; False if another process has it."""
    claim = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(claim)
        return False
    _CLAIMS.append(claim)
    return True
