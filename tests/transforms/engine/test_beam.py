"""The Beam side: numbers in, one report each, one summary of the run; nothing raised inside a shard escapes."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that

from tests.support.shard_runs import PlainStep, faults_of, shard_case, snapshot
from transforms import storage
from transforms.engine import beam as process
from transforms.engine.beam import ProcessShards, _Summarise, digest_block, shard_ranges
from transforms.ledger.types import ShardCounts, ShardReport


def test_shard_numbers_travel_as_ranges() -> None:
    assert shard_ranges([]) == []
    assert shard_ranges([0, 1, 2, 5, 7, 8]) == [(0, 3), (5, 6), (7, 9)]
    assert shard_ranges(range(2500)) == [(0, 1000), (1000, 2000), (2000, 2500)]


def report(shard: int, status: Any, **more: Any) -> dict[str, Any]:
    return asdict(ShardReport(shard, status, ShardCounts(rows_read=10, rows_written=10), **more))


def test_a_summary_is_the_same_however_reports_are_grouped() -> None:
    reports = [
        report(0, "done", timings={"read": 1.0}),
        report(1, "adopted"),
        report(2, "skipped"),
        *(report(shard, "failed", reason=f"why {shard}") for shard in range(3, 200)),
    ]
    combine = _Summarise()

    def summed(group: list[dict[str, Any]]) -> dict[str, Any]:
        total = combine.create_accumulator()
        for one in group:
            total = combine.add_input(total, digest_block((0, [one]), "unused"))
        return total

    whole = digest_block((0, reports), "unused")
    assert summed(reports) == whole
    assert (
        combine.merge_accumulators([summed(reports[::-2]), summed(reports[::-2][:0]), summed(reports[-2::-2])]) == whole
    )
    assert whole["shards"] == {"done": 1, "adopted": 1, "skipped": 1, "failed": 197}
    assert whole["rows"]["rows_written"] == 20, "rows of earlier runs are not counted again"
    assert whole["failed"][:2] == [[3, "why 3"], [4, "why 4"]]
    assert len(whole["failed"]) == process.REASONS_KEPT


def test_a_job_can_be_sent_to_other_machines(tmp_path: Path) -> None:
    job = shard_case(tmp_path, "tokens", str(tmp_path / "out")).job
    assert pickle.loads(pickle.dumps(job)) == job


def run_process(case: Any, shards: list[int]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def keep(summaries: list[dict[str, Any]]) -> None:
        found.extend(summaries)

    with beam.Pipeline("FnApiRunner") as pipeline:
        assert_that(pipeline | beam.Create(shards) | ProcessShards(case.job), keep)
    return storage_summary(case.output)


def storage_summary(output: str) -> Any:
    import json

    return json.loads(storage.read_bytes(f"{output}/_vqbeam/last_run.json"))


@pytest.fixture
def plain_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "make_steps", lambda job: [PlainStep()])


@pytest.mark.usefixtures("plain_steps")
def test_shards_are_processed_and_success_is_said_when_the_whole_plan_is_done(tmp_path: Path) -> None:
    case = shard_case(tmp_path, "tokens", str(tmp_path / "out"), rows=7, rows_per_shard=3)
    some = run_process(case, [0, 2])
    assert some["shards"] == {"done": 2}
    assert "_SUCCESS" not in snapshot(case.output)
    rest = run_process(case, [0, 1, 2])
    assert rest["shards"] == {"done": 1, "skipped": 2}
    assert "_SUCCESS" in snapshot(case.output)
    assert faults_of(case) == []


@pytest.mark.usefixtures("plain_steps")
def test_a_shard_that_the_plan_lacks_is_a_failed_one_and_the_others_are_done(tmp_path: Path) -> None:
    case = shard_case(tmp_path, "tokens", str(tmp_path / "out"), rows=7, rows_per_shard=3)
    summary = run_process(case, [0, 1, 2, 77])
    assert summary["shards"] == {"done": 3, "failed": 1}
    assert summary["failed"][0][0] == 77
    assert "has no shard 00077" in summary["failed"][0][1]


@pytest.mark.usefixtures("plain_steps")
def test_a_damaged_plan_fails_shards_and_not_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = shard_case(tmp_path, "tokens", str(tmp_path / "out"))

    def broken(reader: object, index: int) -> None:
        raise ValueError("not even wrong")

    monkeypatch.setattr(process.ShardReader, "shard", broken)
    assert run_process(case, [0])["failed"] == [[0, "ValueError: not even wrong"]]
