"""How fast the shards came, by the times and the seconds of their marks: in all, and each stage for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from transforms.errors import OutputDamaged
from transforms.ledger.folder import OutputFolder
from transforms.ledger.marks import listed_marks, read_mark
from transforms.ledger.types import STAGES, shard_name

MARKS = 256  # that are read
READERS = 16
BINS = 24


@dataclass(frozen=True)
class Marks:
    """All shards that are done and when, seconds since 1970, 0 if the store tells no times; both in plan order."""

    shards: np.ndarray
    times: np.ndarray


@dataclass(frozen=True)
class Speed:
    """By equal spans of time, the ends of which are `times` (one more than spans): rows written a second, and for each
    stage the rows that went through it in a second of its work; NaN where nothing was done. `read` marks of `marks`."""

    times: np.ndarray
    whole: np.ndarray
    stages: Mapping[str, np.ndarray]
    read: int
    marks: int


def list_marks(output: str) -> Marks:
    """From one listing."""
    found = [(mark.shard, mark.modified) for mark in listed_marks(output)]
    return Marks(np.array([shard for shard, _ in found], np.int64), np.array([time for _, time in found], np.float64))


def speed_of(output: str, marks: Marks) -> Speed | None:
    """From at most `MARKS` marks, evenly spread over time; None if there are no times."""
    if not len(marks.shards) or not marks.times.all():
        return None
    order = np.argsort(marks.times, kind="stable")
    if len(order) > MARKS:
        order = order[np.linspace(0, len(order) - 1, MARKS).round().astype(int)]
    folder = OutputFolder(output)
    with ThreadPoolExecutor(READERS) as readers:
        found = list(readers.map(_values, (folder.stats(shard_name(int(shard))) for shard in marks.shards[order])))
    pairs = [(values, time) for values, time in zip(found, marks.times[order].tolist(), strict=True) if values]
    return _binned(pairs, len(marks.shards)) if pairs else None


def _values(uri: str) -> Mapping[str, Any] | None:
    try:
        return read_mark(uri).values
    except (FileNotFoundError, OutputDamaged):  # taken back meanwhile, or told elsewhere
        return None


def _binned(marks: Sequence[tuple[Mapping[str, Any], float]], every: int) -> Speed:
    """The rows of a shard came evenly between its begin and its end."""
    ends = np.array([time for _, time in marks])
    begins = ends - np.maximum([values["seconds"] for values, _ in marks], 1e-3)
    rows = np.array([values["rows_written"] for values, _ in marks], np.float64)
    edges = np.linspace(begins.min(), ends.max(), min(BINS, 4 * len(marks)) + 1)
    low, high = edges[:-1, None], edges[1:, None]
    share = np.clip(np.minimum(ends, high) - np.maximum(begins, low), 0, None) / (ends - begins)  # [bins, marks]
    stands_for = every / len(marks)  # marks that one stands for
    written = share @ rows * stands_for
    stages = {}
    for stage in STAGES:
        worked = share @ np.array([values["timings"].get(stage, 0.0) for values, _ in marks]) * stands_for
        stages[stage] = np.divide(written, worked, out=np.full(len(worked), np.nan), where=worked > 0)
    return Speed(edges, written / np.diff(edges), stages, len(marks), every)
