"""Digests: what marks add up to is the same with and without them, and marks are read once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.shard_runs import PlainStep, shard_case
from tests.transforms.engine.test_beam import run_process
from tests.transforms.ledger.test_totals import put_mark
from transforms import storage
from transforms.engine import beam
from transforms.ledger import digests, totals
from transforms.ledger.folder import DIGESTS, OutputFolder
from transforms.ledger.marks import read_mark
from transforms.ledger.totals import settle, total_of

SHARDS = 40


@pytest.fixture
def output(tmp_path: Path) -> Path:
    for shard in range(SHARDS):
        rejected = {"rows_written": 9, "rows_rejected": 1, "errors": {"broken_image": 1}} if shard % 7 == 0 else {}
        put_mark(tmp_path, shard, notices={"odd": shard}, **rejected)
    return tmp_path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The marks that are read."""
    seen: list[str] = []
    monkeypatch.setattr(totals, "read_mark", lambda uri: seen.append(uri) or read_mark(uri))
    return seen


def test_marks_are_read_once(output: Path, reads: list[str]) -> None:
    whole = total_of(str(output))
    assert settle(str(output), SHARDS, 1).totals == whole
    assert len(reads) == 2 * SHARDS
    assert total_of(str(output)) == whole
    assert settle(str(output), SHARDS, 1).totals == whole
    assert len(reads) == 2 * SHARDS


@pytest.mark.parametrize("change", ["rows", "gone", "digest damaged", "digest gone"])
def test_what_changed_since_is_seen(output: Path, change: str, reads: list[str]) -> None:
    settle(str(output), SHARDS, 1)
    (digest,) = (output / DIGESTS).iterdir()
    mark = Path(OutputFolder(str(output)).stats("00003"))
    if change == "rows":
        values = json.loads(mark.read_text())
        mark.write_text(json.dumps({**values, "rows_read": 100, "rows_written": 100}))
    elif change == "gone":
        mark.unlink()
    elif change == "digest damaged":
        digest.write_bytes(digest.read_bytes()[:-1])
    else:
        digest.unlink()
    reads.clear()
    found = total_of(str(output))
    assert found.rows_read == {"rows": 10 * SHARDS + 90, "gone": 10 * SHARDS - 10}.get(change, 10 * SHARDS)
    assert len(reads) == SHARDS - (change == "gone")
    outcome = settle(str(output), SHARDS, 1)
    assert outcome.undone == ([3] if change == "gone" else [])
    assert outcome.totals == found
    assert len(list((output / DIGESTS).iterdir())) == 1, "the one that holds no more is gone"
    reads.clear()
    assert total_of(str(output)) == found
    assert reads == []


def test_digests_that_overlap_count_each_mark_once(output: Path) -> None:
    """Two launchers may settle one job at once."""
    whole = total_of(str(output))
    settle(str(output), SHARDS, 1)
    first = digests.read_digest(str(next((output / DIGESTS).iterdir())))
    assert first is not None
    half = first.rows.slice(0, SHARDS // 2)
    marks = [totals._read(OutputFolder(str(output)).stats(f"{shard:05d}"), None)[0] for shard in range(SHARDS // 2)]
    counted = [digests.CountedMark(i, *mark) for i, mark in zip(half["mark"].to_pylist(), marks, strict=True) if mark]
    digests.store_digest(str(output), 0, digests.digest_of(counted))
    assert len(list((output / DIGESTS).iterdir())) == 2
    assert total_of(str(output)) == whole


def test_a_look_sees_objects_that_only_a_digest_lists(output: Path) -> None:
    settle(str(output), SHARDS, 1)
    damaged = total_of(str(output), look=True).damaged
    assert len(damaged) == SHARDS
    assert "data/00000.parquet is missing" in damaged[0]


def test_a_run_digests_the_marks_that_it_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    monkeypatch.setattr(beam, "FEWEST", 2)
    monkeypatch.setattr(beam, "make_steps", lambda job: [PlainStep()])
    case = shard_case(tmp_path, "tokens", str(tmp_path / "out"), rows=7, rows_per_shard=3)
    shards = len(case.shards)
    assert shards == 3
    run_process(case, list(range(shards)))
    assert len(list((tmp_path / "out" / DIGESTS).iterdir())) == 1
    assert reads == [], "not even to settle the job"
    with_digest: Any = total_of(str(tmp_path / "out"))
    storage.delete_folder(str(tmp_path / "out" / DIGESTS))
    assert total_of(str(tmp_path / "out")) == with_digest


def test_a_store_that_tells_no_md5_has_none(reads: list[str]) -> None:
    output = "memory://no-md5"
    for shard in range(SHARDS):
        put_mark(output, shard)  # type: ignore[arg-type]
    settle(output, SHARDS, 1)
    assert storage.list_files(storage.join(output, DIGESTS)) == []
    assert total_of(output).rows_read == 10 * SHARDS
    storage.delete_folder(output)
