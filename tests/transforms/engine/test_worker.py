"""One shard on one worker: its counts, its failures, and no leftovers."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import CheckpointError, ConfigError
from tests.support.injected_faults import counted_writes, fail_at
from tests.support.shard_runs import (
    LAYOUTS,
    PlainStep,
    ShardCase,
    attempt,
    faults_of,
    resources,
    run_shard,
    shard_case,
    snapshot,
)
from transforms import storage
from transforms.engine import worker
from transforms.engine.monitor import request_stop
from transforms.engine.resources import ByteBudget
from transforms.engine.worker import guarded
from transforms.errors import ShardFailed
from transforms.ledger.types import ShardReport


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in set(threading.enumerate()) - before]
    assert [name for name in left if name.startswith(("vqbeam-ahead", "vqbeam-behind"))] == []
    assert os.listdir(tmp_path / "temp") == []


@pytest.fixture
def case(tmp_path: Path) -> ShardCase:
    return shard_case(tmp_path, "tokens", str(tmp_path / "out"))


class BrokenStep(PlainStep):
    """Fails at the second batch."""

    calls = 0

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        self.calls += 1
        if self.calls == 2:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().__call__(batch)


def test_every_row_is_written_rejected_or_filtered(case: ShardCase) -> None:
    image = replace(case.job.work.image, max_aspect_ratio=1.2)  # type: ignore[attr-defined]
    report = attempt(case.working(image=image))
    counts = report.counts
    assert report.status == "done"
    assert (counts.rows_read, counts.rows_written, counts.rows_rejected, counts.rows_filtered) == (7, 3, 2, 2)
    assert counts.errors == {"missing_image": 1, "not_an_image": 1}
    assert counts.filters == {"max_aspect_ratio": 2}
    assert counts.missing_captions == 1
    table = pq.read_table(f"{case.output}/data/00000.parquet")
    assert table["key"].to_pylist() == ["Key/0", "Key/2", "Key/3"]
    errors = pq.read_table(f"{case.output}/{counts.errors_file}").to_pylist()
    assert [(row["key"], row["stage"], row["error"]) for row in errors] == [
        ("Key/1", "decode", "not_an_image"),
        ("Key/5", "read", "missing_image"),
    ]
    assert all(row["message"] and row["uri"] for row in errors)


def test_a_row_that_gets_lost_on_the_way_fails_the_shard(case: ShardCase) -> None:
    class LosingStep(PlainStep):
        def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
            return super().__call__(batch.slice(min(1, batch.num_rows - 1)))

    report = attempt(case, LosingStep())
    assert report.status == "failed"
    assert "rows were lost or made up" in report.reason
    assert list(snapshot(case.output)) == ["_vqbeam/plan.json", "_vqbeam/shards.parquet"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_exception_of_the_model_fails_the_shard_with_its_reason_and_the_next_attempt_does_it(
    tmp_path: Path, layout: str
) -> None:
    case = shard_case(tmp_path, layout, str(tmp_path / "out"))
    report = attempt(case, BrokenStep())
    assert (report.status, report.reason) == (
        "failed",
        "RuntimeError: CUDA error: an illegal memory access was encountered",
    )
    assert "_vqbeam/stats/00000.json" not in snapshot(case.output)
    assert not [name for name in snapshot(case.output) if name.startswith(("data/", "tars/"))]
    assert attempt(case).status == "done"
    assert faults_of(case) == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_disk_full_on_commit_fails_the_shard(tmp_path: Path, layout: str) -> None:
    case = shard_case(tmp_path, layout, str(tmp_path / "out"))
    with counted_writes("local", case.output) as writes:
        writes.hook = fail_at(0, True, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", _full_disk(case.output))
            report = attempt(case)
    assert report.status == "failed"
    assert "No space left on device" in report.reason
    assert report.counts.rows_rejected == 0
    assert attempt(case).status == "done"
    assert faults_of(case) == []


def _full_disk(output: str):
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(output):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    return fsync


def test_a_disk_full_while_writing_the_temporary_file_fails_the_shard_without_a_traceback(
    case: ShardCase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: object, *args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", full)
        report = attempt(case)
    assert report.status == "failed"
    assert "No space left on device" in report.reason
    assert caplog.records == []
    assert attempt(case).status == "done"


def test_too_little_room_is_said_before_the_model_is_loaded(case: ShardCase, monkeypatch: pytest.MonkeyPatch) -> None:
    class NeverLoaded(PlainStep):
        def setup(self) -> None:
            raise AssertionError("loaded")

    monkeypatch.setattr(storage, "free_bytes", lambda folder: 1000)
    report = attempt(case, NeverLoaded())
    assert report.status == "failed"
    assert "0.0 GB free" in report.reason


def test_a_source_that_changed_fails_its_shard_with_that_reason(case: ShardCase, tmp_path: Path) -> None:
    source = tmp_path / "images.parquet"
    content = source.read_bytes()
    source.write_bytes(content + b"more")
    report = attempt(case)
    assert report.status == "failed"
    assert "images.parquet changed since the plan was made" in report.reason
    source.write_bytes(content)
    assert attempt(case).status == "done"


@pytest.mark.parametrize("layout", ["tokens", "files"])
def test_a_source_that_is_gone_fails_its_shard_with_that_reason(tmp_path: Path, layout: str) -> None:
    case = shard_case(tmp_path, layout, str(tmp_path / "out"))
    if layout == "files":
        case = case.working(expected_codebook="0" * 64)
    for source in tmp_path.glob("*.parquet"):
        source.unlink()
    report = attempt(case)
    assert report.status == "failed"
    assert "is gone since the plan was made" in report.reason


def test_a_store_that_fails_while_reading_rejects_no_row(case: ShardCase, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **options: object) -> Iterator[pa.RecordBatch]:
        raise ShardFailed("cannot read gs://b/x: HttpError: 503")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(worker, "read_slices", broken)
        report = attempt(case)
    assert (report.status, report.reason) == ("failed", "cannot read gs://b/x: HttpError: 503")
    assert "_vqbeam/errors" not in "".join(snapshot(case.output))
    assert attempt(case).status == "done"


def test_a_request_to_stop_drops_the_shard_without_a_trace(case: ShardCase, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    class StoppingStep(PlainStep):
        def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
            request_stop(str(scratch))
            return super().__call__(batch)

    step = StoppingStep(batch_size=1)
    with resources(step, str(scratch)) as owned:
        owned.monitor._looked_at = -1e9
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("transforms.engine.monitor.LOOK_INTERVAL", 0)
            assert run_shard(case.shards[0], case.job, owned).status == "stopped"
            assert run_shard(case.shards[0], case.job, owned).status == "stopped"
    assert list(snapshot(case.output)) == ["_vqbeam/plan.json", "_vqbeam/shards.parquet"]


def test_too_many_rejected_rows_fail_the_shard_and_say_which(case: ShardCase) -> None:
    with pytest.MonkeyPatch.context() as patch, resources(max_error_rate=0.25) as owned:
        patch.setattr("transforms.engine.resources.ROWS_BEFORE_RATE", 7)
        report = run_shard(case.shards[0], case.job, owned)
    assert report.status == "failed"
    assert report.reason.startswith("2 of 7 rows rejected so far (1 missing_image, 1 not_an_image)") or (
        report.reason.startswith("2 of 7 rows rejected so far (1 not_an_image, 1 missing_image)")
    )


def test_a_shard_that_fails_while_its_reader_waits_for_room_in_memory_ends(tmp_path: Path) -> None:
    """The reader waits for bytes that only this shard could give back."""
    case = shard_case(tmp_path, "tokens", str(tmp_path / "out"), rows=600)  # several batches read
    with resources(BrokenStep(batch_size=1)) as owned:
        owned.budget = ByteBudget(1)
        report = run_shard(case.shards[0], case.job, owned)
        assert report.status == "failed"
        assert owned.budget._used == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_finished_shard_has_given_back_all_bytes(tmp_path: Path, layout: str) -> None:
    case = shard_case(tmp_path, layout, str(tmp_path / "out"), rows=300)
    with resources() as owned:
        owned.budget = ByteBudget(1000)
        assert run_shard(case.shards[0], case.job, owned).status == "done"
        assert owned.budget._used == 0


def test_any_exception_becomes_a_report(case: ShardCase) -> None:
    with resources() as owned:
        for error in (ShardFailed("the store"), ValueError("a bug"), MemoryError(), OSError("the disk")):

            def fail(error: Exception = error) -> None:
                raise error

            report = guarded(3, owned, fail)  # type: ignore[arg-type]
            assert (report.shard, report.status) == (3, "failed")
            assert str(error) in report.reason


@pytest.mark.parametrize("error", [CheckpointError("copy it"), ConfigError("too wide"), ShardFailed("the store")])
def test_an_error_that_says_all_is_a_reason_as_it_is_without_a_traceback(
    error: Exception, case: ShardCase, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> ShardReport:
        raise error

    with resources() as owned:
        assert guarded(3, owned, fail).reason == str(error)
    assert caplog.records == []


def test_batches_are_full_but_for_the_last(tmp_path: Path) -> None:
    sizes: list[int] = []

    class SizedStep(PlainStep):
        def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
            sizes.append(batch.num_rows)
            return super().__call__(batch)

    case = shard_case(tmp_path, "tokens", str(tmp_path / "out"), rows=600)
    assert attempt(case, SizedStep(batch_size=64)).counts.rows_written == 598
    assert sizes == [64] * 9 + [22]


def test_the_same_rows_come_in_the_same_order_at_any_batch_size(tmp_path: Path) -> None:
    found = []
    for size in (1, 7, 64):
        case = shard_case(tmp_path, "tokens", str(tmp_path / f"out-{size}"), rows=80)
        attempt(case, PlainStep(batch_size=size))
        found.append(pq.read_table(f"{case.output}/data/00000.parquet"))
    assert found[0].equals(found[1])
    assert found[0].equals(found[2])


def test_a_source_that_changes_while_it_is_read_fails_its_shard(case: ShardCase, tmp_path: Path) -> None:
    source = tmp_path / "images.parquet"
    real = storage.stat
    looks: list[str] = []

    def stat(uri: str) -> storage.FileInfo:
        if uri == str(source):
            looks.append(uri)
            if len(looks) > 1:  # after the first, nothing but the end of the slice looks
                source.touch()
        return real(uri)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "stat", stat)
        report = attempt(case)
    assert report.status == "failed"
    assert "images.parquet changed while it was read" in report.reason
    assert attempt(case).status == "done", "only its time is another"
