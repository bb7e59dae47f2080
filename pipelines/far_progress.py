"""Shows a job on an engine that is not this machine's: a line now and then, from the marks and the engine's metrics."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pipelines.screen import Expected
from pipelines.terminal import say
from transforms import storage
from transforms.engine.beam import NAMESPACE
from transforms.errors import ShardFailed, amount
from transforms.ledger.folder import ATTEMPTS
from transforms.ledger.totals import pending_shards

LINE_SECONDS = 15.0  # between two lines
PATIENCE = 30.0  # seconds without a worker, before it is said where to look
LISTINGS_SHARE = 0.1  # of the time may go into listing marks: there may be a million

Metrics = Callable[[], Mapping[str, int]]


@dataclass(frozen=True)
class Watched:
    """The job that is shown: where its marks are, what is expected of it, and where to look if no worker comes."""

    output: str
    expected: Expected
    look: str = "the log of the engine"


class Follower:
    """Knows how far a job is. `metrics` gives the engine's counters of vqbeam, empty if it has none yet."""

    def __init__(self, watched: Watched, metrics: Metrics) -> None:
        self._watched = watched
        self._metrics = metrics
        self._began = time.monotonic()
        self._first: tuple[float, int] | None = None  # when the first shard of this run was seen done, and how many
        self.started = False  # a worker has begun a shard

    def line(self) -> str:
        """One line: "12/40 shards, 3,120 images, 2:10 left"."""
        expected, now = self._watched.expected, time.monotonic()
        done = expected.shards - len(pending_shards(self._watched.output, expected.shards))
        counts: Mapping[str, int] = {}
        with suppress(Exception):  # engines have them or not, early or late, and raise what they like
            counts = self._metrics()
        new = done - expected.shards_before
        shards = f"{done:,}/{expected.shards:,} shards"
        self.started = self.started or new > 0 or any(counts.values()) or self._is_marked()
        if not self.started:
            waited = now - self._began
            hint = f": no worker has started for {waited:.0f} s, see {self._watched.look}" if waited >= PATIENCE else ""
            return f"{shards}, waiting for a worker{hint}"
        parts = [shards]
        if counts.get("rows_written"):
            parts.append(amount(counts["rows_written"], expected.unit))
        if counts.get("rows_rejected"):
            parts.append(f"{counts['rows_rejected']:,} rejected")
        if counts.get("shards_failed"):
            parts.append(f"{amount(counts['shards_failed'], 'shards')} FAILED")
        if new <= 0:
            return ", ".join([*parts, "working"])
        if self._first is None:
            self._first = (now, new)
        since, before = self._first
        if new > before and done < expected.shards:
            seconds = round((now - since) / (new - before) * (expected.shards - done))
            parts.append(f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left")
        return ", ".join(parts)

    def _is_marked(self) -> bool:
        """Whether a worker is at a shard: each attempt leaves a marker while it lasts."""
        return bool(storage.list_files(storage.join(self._watched.output, ATTEMPTS)))


@contextmanager
def far_progress(watched: Watched | None, metrics: Metrics) -> Iterator[None]:
    """While this context is open, tells on stderr how far the job is."""
    if watched is None:
        yield
        return
    closing = threading.Event()
    thread = threading.Thread(target=_show, args=(Follower(watched, metrics), closing), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join(LINE_SECONDS)


def _show(follower: Follower, closing: threading.Event) -> None:
    wait, last = LINE_SECONDS, False
    while not last:
        last = closing.wait(wait)
        began = time.monotonic()
        try:
            line = follower.line()
        except ShardFailed as error:  # the store; the end of the job says more
            line = f"how far the job is cannot be read: {error}"
        wait = max(LINE_SECONDS, (time.monotonic() - began) / LISTINGS_SHARE)
        if follower.started or not last:
            say(line, file=sys.stderr, flush=True)


def counters(result: Any) -> dict[str, int]:
    """vqbeam's counters in the metrics of a result, added up over steps, which not every engine names."""
    if hasattr(result, "_metrics"):
        result._metrics = None  # the portable runner keeps what it once got
    totals: dict[str, int] = {}
    for counter in result.metrics().query()["counters"]:
        name = counter.key.metric
        if name.namespace == NAMESPACE:
            totals[name.name] = totals.get(name.name, 0) + int(counter.committed or counter.attempted or 0)
    return totals
