"""What is known of a run at a moment, from what its workers wrote into the scratch folder. Whoever shows a run shows
these numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.estimate import Estimate
from transforms.engine.monitor import At, read_totals, read_whereabouts
from transforms.ledger.types import STAGES

STARTING = "starting a worker"
FOR_A_WORKER = "waiting for a worker"  # elsewhere
LOADING = "loading the model"
READING = "reading"
FIRST_BATCH = "the first batch is at work"
WRITING = "writing"


@dataclass(frozen=True)
class Expected:
    """What is known before the work begins: `shards` of the whole plan, `shards_before` that earlier runs did,
    and the rows of the rest, None if they have not been counted, with the `places` in its batches. `unit` is what rows
    are called."""

    shards: int
    shards_before: int = 0
    rows: int | None = None
    unit: str = "images"
    places: int | None = None


@dataclass(frozen=True)
class Sample:
    """`time` is in seconds since 1970, `seconds` since the run began. Rows are those of this run: `rows_done` are
    through the model or refused before it, and may be a part of one. None is not known. `doing`: what the run waits
    for, or where its one worker is in a batch, at `step` of `steps`, 0 if it has none; `waited`: for how many seconds,
    until anything is done. `idle`: seconds since anything was done, if that is longer than usual. `stages` are seconds
    of all workers."""

    expected: Expected
    time: float = 0.0
    seconds: float = 0.0
    doing: str = ""
    step: int = 0
    steps: int = 0
    waited: float | None = None
    idle: float = 0.0
    shards_done: int = 0
    shards_failed: int = 0
    shards_in_work: int = 0
    rows: float | None = None
    rows_done: float | None = None
    rows_written: int = 0
    rows_rejected: int = 0
    rows_filtered: int = 0
    rows_per_second: float | None = None
    seconds_left: float | None = None
    stages: Mapping[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float | None:
        """How much is done, 0 to 1; None if it is not known."""
        expected = self.expected
        if self.shards_done + self.shards_failed >= expected.shards:
            return 1.0
        if self.rows_done is None:
            before = expected.shards_before
            return (self.shards_done - before) / (expected.shards - before)
        if not self.rows:
            return None
        return min(1.0, self.rows_done / self.rows)


class Sampler:
    """Looks at the run whose workers write into `scratch`."""

    def __init__(self, scratch: str, expected: Expected, clock: Callable[[], float] = time.monotonic) -> None:
        self._scratch = scratch
        self._clock = clock
        self._reckoning = Reckoning(expected, clock())

    def look(self) -> Sample:
        return self._reckoning.sample(self._clock(), read_totals(self._scratch), read_whereabouts(self._scratch))


class Reckoning:
    """Makes samples of counters that grow. `starting` is what the run waits for before any worker is at a shard."""

    def __init__(self, expected: Expected, began: float, starting: str = STARTING) -> None:
        self._expected = expected
        self._starting = starting
        self._began = began
        self._rows, self._places = Estimate(), Estimate()
        self._doing: tuple[str, float] = ("", began)  # and since when

    def sample(self, now: float, totals: Mapping[str, float], whereabouts: Sequence[At] = ()) -> Sample:
        """`now` by the clock that `began` was read from."""
        expected, done = self._expected, totals["rows_done"]
        under_way = done > 0 or totals["shards_done"] + totals["shards_failed"] > 0
        abreast = max(1, int(totals["shards_in_flight"]))
        if under_way or totals["models_loaded"]:
            self._rows.note(now, done, abreast=abreast)
            self._places.note(now, totals["places_done"], abreast=abreast)
        to_do = max(expected.shards - expected.shards_before, 1)
        ended_well = 1 - totals["shards_failed"] / to_do
        rows = _scaled(expected.rows, ended_well)
        if rows is None and totals["shards_done"]:  # as many as in those that are done
            rows = totals["rows_of_done_shards"] / totals["shards_done"] * to_do * ended_well
        ended = totals["shards_done"] + totals["shards_failed"] >= to_do
        at = self._at(totals, whereabouts, under_way=under_way, all_done=rows is not None and done > rows - 0.01)
        if at.part != self._doing[0]:
            self._doing = (at.part, now)
        return Sample(
            expected=expected,
            time=time.time(),
            seconds=now - self._began,
            doing="" if ended else at.part,
            step=at.done,
            steps=at.of,
            waited=None if under_way else now - self._doing[1],
            idle=0.0 if ended or at.part == WRITING else self._rows.idle(),
            shards_done=expected.shards_before + int(totals["shards_done"]),
            shards_failed=int(totals["shards_failed"]),
            shards_in_work=int(totals["shards_in_flight"]),
            rows=rows,
            rows_done=done,
            rows_written=int(totals["rows_written"]),
            rows_rejected=int(totals["rows_rejected"]),
            rows_filtered=int(totals["rows_filtered"]),
            rows_per_second=self._rows.rate,
            seconds_left=None if ended or rows is None else self._left(rows - done, totals, ended_well),
            stages={stage: totals[f"{stage}_seconds"] for stage in STAGES},
        )

    def _left(self, rows: float, totals: Mapping[str, float], ended_well: float) -> float | None:
        """By the places of batches: one that is not full takes as long as one that is."""
        if rows < 0.01:
            return None
        places = _scaled(self._expected.places, ended_well)
        if places is None or places <= totals["places_done"]:
            return self._rows.left(rows)
        return self._places.left(places - totals["places_done"])

    def _at(self, totals: Mapping[str, float], whereabouts: Sequence[At], *, under_way: bool, all_done: bool) -> At:
        at = whereabouts[0] if len(whereabouts) == 1 and whereabouts[0].of else At()
        if under_way:
            return At(WRITING) if all_done else at
        if not totals["shards_in_flight"]:
            return At(self._starting)
        if not totals["models_loaded"]:
            return At(whereabouts[0].part if whereabouts else LOADING)
        if not whereabouts:
            return At(READING)
        return at if at.of else At(FIRST_BATCH)


def _scaled(number: int | None, share: float) -> float | None:
    return None if number is None else number * share
