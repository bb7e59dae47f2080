"""Counts the rows of a shard that are done while a batch is still in the model, so that a long batch shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from models.whereabouts import watched
from transforms.engine.monitor import Monitor

BATCH = "batch"  # where a worker is whose model does not tell more
FIRST_PART = 0.9  # of a batch, that its first part takes for as long as none has been through


class Tally:
    """The rows of one attempt at a shard that are done: through the model, or refused before it.

    A row counts once, whatever becomes of it behind the model. What an attempt counted is taken back if it fails.
    `places` are those of whole batches: one that is not full takes as long.
    """

    def __init__(self, monitor: Monitor) -> None:
        self.beat: Callable[[float], None] = lambda rows: None  # is told the rows that are done
        self._monitor = monitor
        self._rows = self._places = 0.0

    def add(self, rows: float, places: float) -> None:
        if rows or places:
            self._rows += rows
            self._places += places
            self._monitor.add(rows_done=rows, places_done=places)
            self.beat(self._rows)

    def end(self, rows: int | None) -> None:
        """The attempt is over, and so many rows are done by it, or by one before it; None if it failed."""
        if rows is None:
            self.add(-self._rows, -self._places)
        else:
            self.add(rows - self._rows, max(0.0, rows - self._places))
            self._monitor.add(rows_of_done_shards=rows)


class Pacer:
    """Divides a batch among the parts that its model tells of, by what they took in the last batch of this process."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._shares: dict[str, float] = {}  # of a batch's time, by part, in their order
        self._lock = threading.Lock()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """While this context is open, shows what the loading of a model tells."""
        try:
            with watched(self._monitor.at):
                yield
        finally:
            self._monitor.at("")

    @contextmanager
    def batch(self, tally: Tally, rows: int, places: int) -> Iterator[None]:
        """While this context is open, a batch of `rows` in so many `places` is in the model; they are done at its
        end."""
        monitor, began, counted = self._monitor, time.perf_counter(), 0.0
        starts: dict[str, float] = {}  # when each part was told first, in seconds since the batch began

        def count(share: float) -> None:
            nonlocal counted
            if share > counted:
                tally.add((share - counted) * rows, (share - counted) * places)
                counted = share

        def told(part: str, done: int, of: int) -> None:
            starts.setdefault(part, time.perf_counter() - began)
            count(self._share(part, done / of if of else 0.0, first=len(starts) == 1))
            monitor.at(part, done, of)

        monitor.at(BATCH)
        try:
            with watched(told):
                yield
        finally:
            monitor.at("")
        count(1.0)
        self._learn(starts, time.perf_counter() - began)

    def _share(self, part: str, within: float, *, first: bool) -> float:
        """How much of a batch is done."""
        shares = self._shares
        if part not in shares:
            return FIRST_PART * within if first else 0.0  # what was counted stays
        parts = list(shares)
        return sum(shares[before] for before in parts[: parts.index(part)]) + shares[part] * within

    def _learn(self, starts: dict[str, float], seconds: float) -> None:
        if starts and seconds > 0:
            begins = [0.0, *list(starts.values())[1:], seconds]  # what comes before the first is taken for its own
            shares = {part: (begins[i + 1] - begins[i]) / seconds for i, part in enumerate(starts)}
            with self._lock:
                self._shares = shares
