"""How fast the workers of a run were: rows over the time that each process worked, whose shards may overlap."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

_HERE = uuid.uuid4().hex  # other containers have the same process numbers

# For each worker when it began its first shard and ended its last one, by its own clock, and the rows that it wrote.
Spans = dict[str, tuple[float, float, int]]


def worker() -> str:
    """The name of this process, which no other worker of a run has."""
    return f"{_HERE}-{os.getpid()}"


def span_of(report: Mapping[str, Any]) -> Spans:
    """Of one attempt at a shard; empty if it found no work to do. `report` has the fields of a `ShardReport`."""
    if report["status"] not in ("done", "failed") or not report["worker"]:
        return {}
    rows = report["counts"]["rows_written"] if report["status"] == "done" else 0
    return {report["worker"]: (report["began"], report["ended"], rows)}


def together(several: Iterable[Spans]) -> Spans:
    """The spans of all attempts."""
    found: Spans = {}
    for spans in several:
        for name, (began, ended, rows) in spans.items():
            first, last, before = found.get(name, (began, ended, 0))
            found[name] = min(first, began), max(last, ended), before + rows
    return found


def speed(spans: Spans) -> dict[str, float]:
    """The number of workers, the seconds that they worked, added up, and the rows that they wrote. JSON-ready."""
    return {
        "number": len(spans),
        "seconds": round(sum(ended - began for began, ended, _ in spans.values()), 3),
        "rows_written": sum(rows for _, _, rows in spans.values()),
    }
