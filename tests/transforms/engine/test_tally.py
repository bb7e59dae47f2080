"""Rows that are done are counted within batches, once, and taken back if their shard fails."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from models.whereabouts import tell
from tests.support.shard_runs import PlainStep, ShardCase, resources, run_shard, shard_case
from transforms.engine import attempts as attempts_module
from transforms.engine import monitor as monitor_module
from transforms.engine import tally as tally_module
from transforms.engine.attempts import Beat
from transforms.engine.monitor import At, Monitor, read_totals, read_whereabouts
from transforms.engine.tally import Pacer, Tally
from transforms.ledger.pace import pace_of


class Parts:
    """A batch whose parts take the seconds that a test says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(monitor_module, "WRITE_INTERVAL", 0)
        self.now = 0.0
        monkeypatch.setattr(tally_module, "time", SimpleNamespace(perf_counter=lambda: self.now))
        self.folder = str(folder)
        self.monitor = Monitor(self.folder)
        self.pacer = Pacer(self.monitor)

    def batch(self, rows: int, *parts: tuple[str, int, int, float]) -> list[float]:
        """Rows done as each part is told, and at the end."""
        begun = self.done()
        seen = []
        with self.pacer.batch(Tally(self.monitor), rows, 8):
            for part, step, steps, seconds in parts:
                tell(part, step, steps)
                seen.append(self.done() - begun)
                assert read_whereabouts(self.folder) == [At(part, step, steps)]
                self.now += seconds
        assert read_whereabouts(self.folder) == []
        return [*seen, self.done() - begun]

    def done(self) -> float:
        return read_totals(self.folder)["rows_done"]


def test_parts_of_a_batch_count_by_what_they_took_in_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(tmp_path, monkeypatch)
    told = (("codes", 0, 2, 30.0), ("codes", 1, 2, 30.0), ("codes", 2, 2, 0.0), ("painting", 0, 4, 20.0))
    assert parts.batch(8, *told) == pytest.approx([0, 0.45 * 8, 0.9 * 8, 0.9 * 8, 8])
    assert parts.batch(4, *told) == pytest.approx([0, 0.375 * 4, 0.75 * 4, 0.75 * 4, 4])
    assert read_totals(parts.folder)["places_done"] == pytest.approx(16)


def test_a_batch_that_tells_nothing_counts_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(tmp_path, monkeypatch)
    with parts.pacer.batch(Tally(parts.monitor), 3, 8):
        assert parts.done() == 0
        assert read_whereabouts(parts.folder) == [At("batch")]
    assert parts.done() == 3


class WatchedStep(PlainStep):
    """Notes how many rows are done when each batch begins."""

    def __init__(self, folder: Path, fails: bool = False) -> None:
        super().__init__()
        self.folder, self.fails = str(folder), fails
        self.seen: list[float] = []

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        self.seen.append(read_totals(self.folder)["rows_done"])
        if self.fails and len(self.seen) == 2:
            raise RuntimeError("out of memory")
        return super().__call__(batch)


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShardCase:
    monkeypatch.setattr(monitor_module, "WRITE_INTERVAL", 0)
    return shard_case(tmp_path, "tokens", str(tmp_path / "out"))


def counters(folder: Path) -> tuple[float, float]:
    totals = read_totals(str(folder))
    return totals["rows_done"], totals["rows_of_done_shards"]


def test_a_shard_counts_each_of_its_rows_once(case: ShardCase, tmp_path: Path) -> None:
    """Two of seven are refused before the model."""
    step = WatchedStep(tmp_path)
    with resources(step, str(tmp_path)) as owned:
        assert run_shard(case.shards[0], case.job, owned).counts.rows_read == 7
        assert counters(tmp_path) == (7, 7)
        assert np.all(np.diff(step.seen) > 0)
        assert run_shard(case.shards[0], case.job, owned).status == "skipped"
        assert counters(tmp_path) == (14, 14)


def test_what_a_failed_shard_counted_is_taken_back(case: ShardCase, tmp_path: Path) -> None:
    step = WatchedStep(tmp_path, fails=True)
    with resources(step, str(tmp_path)) as owned:
        assert run_shard(case.shards[0], case.job, owned).status == "failed"
    assert step.seen[1] > 0
    assert counters(tmp_path) == (0, 0)
    assert read_whereabouts(str(tmp_path)) == []


def test_a_marker_says_how_many_rows_of_its_shard_are_done(
    case: ShardCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts_module, "BEAT_SECONDS", 0.0)
    told: list[int | None] = []

    class Look(WatchedStep):
        def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
            told.append(pace_of(case.output).rows_in_work)
            return super().__call__(batch)

    with resources(Look(tmp_path), str(tmp_path)) as owned:
        assert run_shard(case.shards[0], case.job, owned).status == "done"
    assert [bool(count) for count in told] == [True, True]
    assert pace_of(case.output).in_work == ()


def test_a_marker_that_is_gone_does_not_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts_module, "BEAT_SECONDS", 0.0)
    Beat(str(tmp_path / "00000.abc"))(5.0)
    assert list(tmp_path.iterdir()) == []


def test_threads_do_not_watch_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(tmp_path, monkeypatch)
    with parts.pacer.batch(Tally(parts.monitor), 8, 8):
        thread = threading.Thread(target=tell, args=("codes", 1, 2))
        thread.start()
        thread.join()
        assert parts.done() == 0
