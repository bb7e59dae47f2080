"""How a job goes, seen from its folder: shards in work, when the last one was done, and how fast they come."""

from __future__ import annotations

import heapq
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

from transforms import storage
from transforms.errors import OutputDamaged
from transforms.ledger.folder import ATTEMPTS
from transforms.ledger.marks import listed_marks, read_mark
from transforms.ledger.types import shard_number

LAST = 32  # shards that the speed is taken from
READERS = 16
MOST_TOLD = 256  # markers that are read
QUIET = 60.0  # seconds without a sign that say nothing yet
GAPS = 3  # times the longest time between two shards: after it a job is not taken for running


@dataclass(frozen=True)
class Pace:
    """`last_sign`: seconds since 1970, 0 if nothing was done yet or the store tells no times. `in_work`: shards with an
    attempt that has not ended, or whose worker was lost; `rows_in_work` of them are done, None if nobody says so.
    `rate`: rows written a second, over the last shards; `shard_rows`: how many one of them wrote. `longest_gap`:
    seconds between two of them."""

    last_sign: float
    in_work: tuple[int, ...]
    rate: float | None
    shard_rows: float
    longest_gap: float
    rows_in_work: int | None = None

    def seconds_left(self, pending: int, now: float) -> float | None:
        """For so many more shards; None if that cannot be told, or nothing seems to run."""
        silent = now - self.last_sign > QUIET + GAPS * self.longest_gap
        return None if self.rate is None or silent else pending * self.shard_rows / self.rate


def pace_of(output: str) -> Pace:
    """From one listing of the marks, one of the attempts, and the marks of the last `LAST` shards."""
    newest: list[tuple[float, int, str]] = []
    done: set[int] = set()
    attempts = list(storage.iterate_files(storage.join(output, ATTEMPTS)))
    begun = {_shard_of(info): info.modified for info in attempts}
    for mark in listed_marks(output):
        if mark.shard in begun:
            done.add(mark.shard)
        if mark.modified:
            (heapq.heappush if len(newest) < LAST else heapq.heappushpop)(newest, (mark.modified, mark.shard, mark.uri))
    newest.sort()
    with ThreadPoolExecutor(READERS) as readers:
        rows: list[int] = list(readers.map(_rows_written, (uri for _, _, uri in newest)))
        told = [info.uri for info in attempts if info.size and _shard_of(info) not in done][:MOST_TOLD]
        in_work = [count for count in readers.map(_rows_told, told) if count is not None]
    times = [time for time, _, _ in newest]
    span = times[-1] - times[0] if times else 0.0
    later = sum(rows[1:])  # since the first of them was done
    return Pace(
        last_sign=max([*times[-1:], *begun.values(), 0.0]),
        in_work=tuple(sorted(begun.keys() - done)),
        rate=later / span if span > 0 and later else None,
        shard_rows=sum(rows) / len(rows) if rows else 0.0,
        longest_gap=max((b - a for a, b in pairwise(times)), default=0.0),
        rows_in_work=sum(in_work) if in_work else None,
    )


def _shard_of(attempt: storage.FileInfo) -> int:
    return shard_number(attempt.uri.rpartition("/")[2].partition(".")[0])


def _rows_told(uri: str) -> int | None:
    """What a worker wrote into its marker."""
    try:
        return int(storage.read_bytes(uri))
    except (FileNotFoundError, ValueError):
        return None


def _rows_written(uri: str) -> int:
    try:
        return int(read_mark(uri).values["rows_written"])
    except (FileNotFoundError, OutputDamaged):  # taken back meanwhile, or told elsewhere
        return 0
