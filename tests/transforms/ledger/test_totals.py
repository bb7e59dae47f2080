"""The whole of a job from its marks, and what `_SUCCESS` says of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from transforms import storage
from transforms.ledger import totals
from transforms.ledger.folder import OutputFolder
from transforms.ledger.totals import failing, pending_shards, settle, total_of
from transforms.ledger.types import ShardCounts, ShardReport, StoredObject, pack_codes, shard_name, stats_json


def put_mark(output: Path, shard: int, **counts: object) -> None:
    used = np.zeros(20, bool)
    used[shard % 20] = True
    values = {"rows_read": 10, "rows_written": 10, "codes_used": pack_codes(used)} | counts
    timings = {"read": 0.5, "model": 1.5}
    report = ShardReport(shard, "done", ShardCounts(**values), 2.0, timings, bytes=111)  # type: ignore[arg-type]
    objects = [StoredObject(f"data/{shard_name(shard)}.parquet", 100, "0" * 64), StoredObject("images/x", 11, "1" * 64)]
    storage.put_bytes(stats_json(report, objects, "1"), OutputFolder(str(output)).stats(shard_name(shard)))


def succeeded(output: Path) -> bool:
    return (output / "_SUCCESS").exists()


def test_marks_add_up(tmp_path: Path) -> None:
    put_mark(tmp_path, 0)
    put_mark(tmp_path, 1, rows_written=7, rows_rejected=2, rows_filtered=1, errors={"broken_image": 2})
    put_mark(tmp_path, 2, rows_written=9, rows_rejected=1, errors={"broken_image": 1}, notices={"odd": 3})
    total = total_of(str(tmp_path))
    assert (total.rows_read, total.rows_written, total.rows_rejected, total.rows_filtered) == (30, 26, 3, 1)
    assert total.errors == {"broken_image": 3}
    assert total.notices == {"odd": 3}
    assert total.timings == {"read": 1.5, "model": 4.5}
    assert (total.seconds, total.bytes, total.codes_used) == (6.0, 333, 3)
    assert total.shards_with_rejected == [1, 2]


def test_shards_without_a_mark_are_pending(tmp_path: Path) -> None:
    assert pending_shards(str(tmp_path), 3) == [0, 1, 2]
    put_mark(tmp_path, 1)
    (tmp_path / "_vqbeam" / "stats" / f"{storage.PARTIAL_PREFIX}00002.json-12").touch()
    assert pending_shards(str(tmp_path), 3) == [0, 2]


def test_markers_of_attempts_at_shards_that_are_done_go(tmp_path: Path) -> None:
    """A run that is killed between a commit and the removal of its marker leaves one."""
    put_mark(tmp_path, 0)
    attempts = tmp_path / "_vqbeam" / "attempts"
    attempts.mkdir()
    left = [attempts / name for name in ("00000.5ad1", f"{storage.PARTIAL_PREFIX}00000.5ad1-7", "00001.ab12")]
    for path in left:
        path.touch()
    settle(str(tmp_path), 2, 0.1)
    assert [path.exists() for path in left] == [False, False, True]


def test_a_mark_that_is_taken_back_while_the_others_are_read_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_mark(tmp_path, 0)
    listed = [*totals.mark_uris(str(tmp_path)), f"{tmp_path}/_vqbeam/stats/00007.json"]
    monkeypatch.setattr(totals, "mark_uris", lambda output: listed)
    assert total_of(str(tmp_path)).rows_read == 10


def test_success_is_said_only_when_every_shard_is_done(tmp_path: Path) -> None:
    put_mark(tmp_path, 0)
    outcome = settle(str(tmp_path), 2, 0.1)
    assert (outcome.undone, outcome.well, succeeded(tmp_path)) == ([1], False, False)
    put_mark(tmp_path, 1)
    outcome = settle(str(tmp_path), 2, 0.1)
    assert (outcome.undone, outcome.well, succeeded(tmp_path)) == ([], True, True)


def test_success_is_taken_back_when_it_is_no_longer_true(tmp_path: Path) -> None:
    put_mark(tmp_path, 0, rows_written=8, rows_rejected=2, errors={"broken_image": 2})
    assert settle(str(tmp_path), 1, 0.2).well
    assert succeeded(tmp_path)
    outcome = settle(str(tmp_path), 1, 0.1)
    assert outcome.failing == (
        "rejected 2 of 10 rows (20.0%), more than max_error_rate 0.1; "
        "if that is right, accept them with max_error_rate 0.2"
    )
    assert not succeeded(tmp_path)


def test_a_job_that_wrote_nothing_has_failed(tmp_path: Path) -> None:
    put_mark(tmp_path, 0, rows_written=0, rows_filtered=10)
    assert settle(str(tmp_path), 1, 1.0).failing == "nothing was written"
    assert failing(total_of(str(tmp_path / "empty")), 1.0) == "nothing was written: there was nothing to read"


def test_long_lists_of_objects_are_not_kept(tmp_path: Path) -> None:
    put_mark(tmp_path, 0)
    uri = OutputFolder(str(tmp_path)).stats("00000")
    found, _ = totals._read(uri, None)
    assert found is not None
    values, objects = found
    assert "objects" not in values
    assert values["bytes"] == 111
    assert [item.path for item in objects] == ["data/00000.parquet"]
    assert "objects" in json.loads(storage.read_bytes(uri))
