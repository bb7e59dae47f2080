"""How fast the workers of a run were."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from transforms.engine.speed import span_of, speed, together, worker
from transforms.ledger.types import ShardCounts, ShardReport


def spans(status: Any, name: str, began: float, ended: float) -> dict[str, tuple[float, float, int]]:
    return span_of(asdict(ShardReport(0, status, ShardCounts(rows_written=10), worker=name, began=began, ended=ended)))


def test_shards_that_overlap_in_a_process_count_once() -> None:
    threads = [spans("done", "a", 0.0, 4.0), spans("done", "a", 1.0, 5.0), spans("done", "a", 4.0, 5.0)]
    assert speed(together(threads)) == {"number": 1, "seconds": 5.0, "rows_written": 30}
    assert together(threads[::-1]) == together([together(threads[:1]), together(threads[1:])])


def test_workers_that_begin_late_count_from_then() -> None:
    found = [spans("done", "a", 0.0, 10.0), spans("done", "b", 8.0, 10.0), spans("failed", "b", 10.0, 11.0)]
    assert speed(together(found)) == {"number": 2, "seconds": 13.0, "rows_written": 20}


def test_what_others_have_done_is_no_work() -> None:
    found = [spans("skipped", "a", 0.0, 9.0), spans("adopted", "a", 0.0, 9.0), spans("done", "", 0.0, 9.0)]
    assert speed(together(found)) == {"number": 0, "seconds": 0, "rows_written": 0}


def test_a_process_has_one_name() -> None:
    assert worker() == worker()
