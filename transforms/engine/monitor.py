"""Counters and whereabouts from workers to the launcher of a local run, and the request to stop on the way back.

Both are small files in the scratch folder of the run, whether workers are threads or processes. Other runners have no
such folder, and nothing happens here.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

COUNTERS = (
    "shards_in_flight",
    "shards_done",
    "shards_failed",
    "models_loaded",
    "rows_read",
    "rows_done",
    "places_done",
    "rows_of_done_shards",
    "rows_written",
    "rows_rejected",
    "rows_filtered",
    "read_seconds",
    "decode_seconds",
    "model_seconds",
    "write_seconds",
)
STOP_FILE = "stop"
LAST_FILE = "last"
WRITE_INTERVAL = 0.5  # seconds between two writes of the counters
AT = "at"  # beside the counters
LOOK_INTERVAL = 0.1  # seconds between two looks for the request to stop


class At(NamedTuple):
    """Where a worker is: in a `part` of a batch, or of loading a model; `done` of `of` steps, 0 if it has none."""

    part: str = ""
    done: int = 0
    of: int = 0


class Monitor:
    """Counts for one worker, and looks for the request to stop; safe to share between threads.

    `folder` is the scratch folder of a local run; if it is None, nothing is counted. Several monitors in one process
    are fine: their counters are added up. Errors of the folder never harm the work. `stopped` tells of a request to
    stop that comes another way.
    """

    def __init__(self, folder: str | None, stopped: Callable[[], bool] | None = None) -> None:
        self._folder = folder
        self._stopped = stopped
        self._file = f"counters-{os.getpid()}-{uuid.uuid4().hex[:8]}.json"
        self._lock = threading.Lock()
        self._counts: dict[str, float] = dict.fromkeys(COUNTERS, 0)
        self._at = At()
        self._written_at = float("-inf")
        self._looked_at = float("-inf")
        self._stop = False

    def add(self, **counts: float) -> None:
        """Adds to counters named in `COUNTERS`; the launcher sees it within a second, shards and models at once."""
        unknown = counts.keys() - self._counts.keys()
        if unknown:
            raise ValueError(f"unknown counters {sorted(unknown)}")
        if self._folder is None:
            return
        of_shards = any(name.startswith(("shards_", "models_")) for name in counts)
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count
            if of_shards or time.monotonic() - self._written_at >= WRITE_INTERVAL:
                self._write(self._folder)

    def at(self, part: str, done: int = 0, of: int = 0) -> None:
        """Says where this worker is; the launcher sees another part at once, steps within a second."""
        if self._folder is None:
            return
        with self._lock:
            another = part != self._at.part
            self._at = At(part, done, of)
            if another or time.monotonic() - self._written_at >= WRITE_INTERVAL:
                self._write(self._folder)

    def stop_requested(self) -> bool:
        """Whether the run is to stop; cheap enough to ask for every batch. A vanished scratch folder means yes."""
        if self._folder is None or self._stop:
            return self._stop or (self._stopped is not None and self._stopped())
        now = time.monotonic()
        if now - self._looked_at >= LOOK_INTERVAL:
            self._looked_at = now
            self._stop = os.path.exists(os.path.join(self._folder, STOP_FILE)) or not os.path.isdir(self._folder)
        return self._stop

    def last_requested(self) -> bool:
        """Whether no more shards are to be begun; to be asked once a shard."""
        return self._folder is not None and os.path.exists(os.path.join(self._folder, LAST_FILE))

    def _write(self, folder: str) -> None:
        self._written_at = time.monotonic()
        path = os.path.join(folder, self._file)
        with suppress(OSError):  # a full disk or a removed folder costs the display, not the shard
            with open(path + ".new", "w", encoding="utf-8") as out:
                json.dump({**self._counts, AT: self._at}, out)
            os.replace(path + ".new", path)


def read_totals(folder: str) -> dict[str, float]:
    """The counters of all workers of the run, added up; every name in `COUNTERS` is there."""
    return _total(folder, "counters-*.json")


def read_whereabouts(folder: str) -> list[At]:
    """Where each worker of the run is that is anywhere."""
    places = [At(*found[AT]) for found in _found(folder, "counters-*.json")]
    return [place for place in places if place.part]


def _total(folder: str, pattern: str) -> dict[str, float]:
    totals: dict[str, float] = dict.fromkeys(COUNTERS, 0)
    for found in _found(folder, pattern):
        for name in COUNTERS:
            totals[name] += found[name]
    return totals


def _found(folder: str, pattern: str) -> Iterator[dict[str, Any]]:
    for path in Path(folder).glob(pattern):
        with suppress(FileNotFoundError):  # the run is being cleaned up
            yield json.loads(path.read_text(encoding="utf-8"))


def shards_in_flight(folder: str, pids: Iterable[int]) -> int:
    """The shards that these processes are at."""
    return int(sum(_total(folder, f"counters-{pid}-*.json")["shards_in_flight"] for pid in pids))


def request_last(folder: str) -> None:
    """Asks all workers of the run to finish the shards in flight and to take no new ones."""
    with suppress(FileNotFoundError):  # the run is over already
        Path(folder, LAST_FILE).touch()


def request_stop(folder: str) -> None:
    """Asks all workers of the run to drop the shards in flight and to take no new ones."""
    with suppress(FileNotFoundError):  # the run is over already
        Path(folder, STOP_FILE).touch()
