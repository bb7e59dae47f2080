"""Shows a job on an engine that is not this machine's: a line now and then, from the marks and the engine's metrics."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pipelines.estimate import Estimate
from pipelines.sample import FOR_A_WORKER, Expected, Sample
from pipelines.sample_text import line
from pipelines.sinks import Sink
from pipelines.terminal import say
from pipelines.ticking import ticking
from transforms import storage
from transforms.engine.beam import NAMESPACE
from transforms.errors import ShardFailed
from transforms.ledger.folder import ATTEMPTS
from transforms.ledger.totals import pending_shards

LINE_SECONDS = 15.0  # between two lines
PATIENCE = 30.0  # seconds without a worker, before it is said where to look
LISTINGS_SHARE = 0.1  # of the time may go into listing marks: there may be a million

Metrics = Callable[[], Mapping[str, int]]


@dataclass(frozen=True)
class Watched:
    """The job that is shown: where its marks are, what is expected of it, where to look if no worker comes, and what
    takes the numbers beside the screen."""

    output: str
    expected: Expected
    look: str = "the log of the engine"
    sinks: Sequence[Sink] = ()


class Follower:
    """Knows how far a job is. `metrics` gives the engine's counters of vqbeam, empty if it has none yet."""

    def __init__(self, watched: Watched, metrics: Metrics) -> None:
        self._watched = watched
        self._metrics = metrics
        self._began = time.monotonic()
        self._shards, self._rows = Estimate(), Estimate()
        self.started = False  # a worker has begun a shard

    def look(self) -> Sample:
        """Raises `ShardFailed` if the store fails."""
        expected, now = self._watched.expected, time.monotonic()
        done = expected.shards - len(pending_shards(self._watched.output, expected.shards))
        counts: Mapping[str, int] = {}
        with suppress(Exception):  # engines have them or not, early or late, and raise what they like
            counts = self._metrics()
        new = done - expected.shards_before
        self.started = self.started or new > 0 or any(counts.values()) or self._is_marked()
        waited = now - self._began
        hint = f": no worker has started for {waited:.0f} s, see {self._watched.look}" if waited >= PATIENCE else ""
        if new > 0:
            self._shards.note(now, new)
            self._rows.note(now, counts.get("rows_written", 0))
        return Sample(
            expected=expected,
            time=time.time(),
            seconds=waited,
            doing=f"{FOR_A_WORKER}{hint}" if not self.started else "" if new > 0 else "working",
            shards_done=done,
            shards_failed=counts.get("shards_failed", 0),
            rows_written=counts.get("rows_written", 0),
            rows_rejected=counts.get("rows_rejected", 0),
            rows_filtered=counts.get("rows_filtered", 0),
            rows_per_second=self._rows.rate,
            seconds_left=self._shards.left(expected.shards - done),
        )

    def _is_marked(self) -> bool:
        """Whether a worker is at a shard: each attempt leaves a marker while it lasts."""
        return bool(storage.list_files(storage.join(self._watched.output, ATTEMPTS)))


@contextmanager
def far_progress(watched: Watched | None, metrics: Metrics) -> Iterator[None]:
    """While this context is open, tells on stderr how far the job is."""
    if watched is None:
        yield
        return
    follower = Follower(watched, metrics)

    def tick(last: bool) -> float:
        began = time.monotonic()
        try:
            sample = follower.look()
            told = line(sample)
            for sink in watched.sinks:
                sink.take(sample, last=last)
        except ShardFailed as error:  # the store; the end of the job says more
            told = f"how far the job is cannot be read: {error}"
        if follower.started or not last:
            say(told, file=sys.stderr, flush=True)
        return max(LINE_SECONDS, (time.monotonic() - began) / LISTINGS_SHARE)

    with ticking(tick, first=LINE_SECONDS):
        yield


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
