"""The shard transaction, cut off and contended at every write: one consistent shard is left, the same bytes."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.support.injected_faults import STORES, Killed, counted_writes, fail_at, kill_at, once_at
from tests.support.shard_runs import LAYOUTS, PlainStep, ShardCase, attempt, faults_of, shard_case, snapshot
from transforms import storage

BOTH = (True, False)  # before a write takes effect, and after


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of files are made here; none of them has to outlive a loss of power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def new_case(tmp_path: Path, store: str, layout: str, rows: int = 7) -> tuple[ShardCase, str]:
    """A case with a new output folder, and the path of that folder in its store."""
    name = f"out-{uuid.uuid4().hex[:8]}"
    output = storage.absolute(f"memory://{name}" if store == "object store" else str(tmp_path / name))
    case = shard_case(tmp_path, layout, output, rows)
    return case, storage.filesystem(output)[1]


def writes_of(tmp_path: Path, store: str, layout: str, rows: int = 7) -> tuple[int, dict[str, bytes]]:
    """How many writes an undisturbed attempt makes, and what it leaves."""
    case, folder = new_case(tmp_path, store, layout, rows)
    with counted_writes(store, folder) as writes:
        assert attempt(case).status == "done"
    assert faults_of(case) == []
    return writes.count, snapshot(case.output)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_shard_killed_at_any_write_ends_as_if_it_had_not_been(tmp_path: Path, store: str, layout: str) -> None:
    count, undisturbed = writes_of(tmp_path, store, layout)
    assert count >= 3
    for number in range(count):
        for before in BOTH:
            case, folder = new_case(tmp_path, store, layout)
            with counted_writes(store, folder) as writes:
                writes.hook = kill_at(number, before)
                try:
                    attempt(case)
                except Killed:
                    pass
                else:
                    assert layout == "files" or number == count - 1, "the attempt was not killed"
            assert attempt(case).status in ("done", "adopted", "skipped")
            assert snapshot(case.output) == undisturbed, (number, before)
            assert faults_of(case) == []
            leftovers = [name for name in snapshot(case.output, hidden=True) if "/." in name]
            assert all("/stats/" in name for name in leftovers)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_shard_whose_store_fails_at_any_write_fails_and_the_next_run_does_it(
    tmp_path: Path, store: str, layout: str
) -> None:
    count, undisturbed = writes_of(tmp_path, store, layout)
    failed = 0
    for number in range(count):
        for before in BOTH:
            case, folder = new_case(tmp_path, store, layout)
            with counted_writes(store, folder) as writes:
                writes.hook = fail_at(number, before, ConnectionError("the answer was lost"))
                report = attempt(case)
            if report.status == "failed":
                failed += 1
                assert "the answer was lost" in report.reason
            assert attempt(case).status in ("done", "adopted", "skipped")
            assert snapshot(case.output) == undisturbed, (number, before)
            assert faults_of(case) == []
    assert failed >= count


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_attempts_that_differ_leave_one_consistent_shard(tmp_path: Path, store: str, layout: str) -> None:
    count, alone = writes_of(tmp_path, store, layout, rows=5)
    rejected = json.loads(alone["_vqbeam/stats/00000.json"])["rows_rejected"]
    outcomes = set()
    for number in range(count):
        for before in BOTH:
            case, folder = new_case(tmp_path, store, layout, rows=5)
            with counted_writes(store, folder) as writes:
                writes.hook = once_at(number, before, lambda case=case: _another(case))
                report = attempt(case)
            assert report.status in ("done", "adopted", "skipped"), report.reason
            assert faults_of(case) == [], (number, before)
            left = snapshot(case.output)
            mark = json.loads(left["_vqbeam/stats/00000.json"])
            assert mark["rows_rejected"] in (rejected, rejected + 1)
            assert len([name for name in left if "/errors/" in name]) == 1
            assert not [name for name in snapshot(case.output, hidden=True) if "/." in name]
            assert mark["rows_read"] == report.counts.rows_read == 5
            assert report.counts.rows_rejected == mark["rows_rejected"]
            outcomes.add(mark["rows_rejected"])
    assert outcomes == {rejected, rejected + 1}, "each of the two won at some point"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_a_killed_attempt_that_differs_left_is_swept_away(tmp_path: Path, store: str, layout: str) -> None:
    count, _ = writes_of(tmp_path, store, layout, rows=5)
    for number in range(count + 4):
        case, folder = new_case(tmp_path, store, layout, rows=5)
        with counted_writes(store, folder) as writes:
            writes.hook = kill_at(number, before=False)
            with contextlib.suppress(Killed):
                _another(case)
        assert attempt(case).status in ("done", "adopted", "skipped")
        assert faults_of(case) == [], number
        errors = [name for name in snapshot(case.output) if "/errors/" in name]
        assert len(errors) == 1


def _another(case: ShardCase) -> None:
    report = attempt(case.differing(), PlainStep(shift=1))
    assert report.status in ("done", "adopted", "skipped"), report.reason


def test_an_answer_that_is_lost_after_the_store_created_the_object_is_no_loss(tmp_path: Path) -> None:
    """A client that tries again hears that the object exists: its own first try created it."""
    case, folder = new_case(tmp_path, "object store", "tokens")
    _, undisturbed = writes_of(tmp_path, "object store", "tokens")
    with counted_writes("object store", folder) as writes:

        def put_twice(number: int, before: bool) -> None:
            if not before and number in (1, 2):  # the marker of the attempt is before them
                raise FileExistsError("412")

        writes.hook = put_twice
        report = attempt(case)
    assert report.status == "adopted"
    assert snapshot(case.output) == undisturbed
    assert faults_of(case) == []


def test_a_shard_with_a_mark_is_left_alone(tmp_path: Path) -> None:
    case, folder = new_case(tmp_path, "local", "tokens")
    first = attempt(case)
    before = snapshot(case.output)
    with counted_writes("local", folder) as writes:
        again = attempt(case, PlainStep(shift=1))
    assert (again.status, again.counts) == ("skipped", first.counts)
    assert writes.count == 0
    assert snapshot(case.output) == before


def test_a_table_without_a_mark_is_adopted_with_its_counts(tmp_path: Path) -> None:
    case, _ = new_case(tmp_path, "local", "files")
    first = attempt(case)
    before = snapshot(case.output)
    storage.delete(f"{case.output}/_vqbeam/stats/00000.json")
    again = attempt(case, PlainStep(shift=1))
    assert (again.status, again.counts) == ("adopted", first.counts)
    assert snapshot(case.output) == before


@pytest.mark.parametrize(("layout", "name"), [("tokens", "data/00000.parquet"), ("webdataset", "tars/00000.tar")])
def test_a_strange_file_in_place_of_the_table_fails_the_shard_and_stays(tmp_path: Path, layout: str, name: str) -> None:
    case, _ = new_case(tmp_path, "local", layout)
    storage.put_bytes(b"mine", f"{case.output}/{name}")
    report = attempt(case)
    assert report.status == "failed"
    assert f"{name} was not written by vqbeam, or is damaged" in report.reason
    assert Path(case.output, name).read_bytes() == b"mine"


def test_a_table_that_names_an_image_that_is_gone_fails_the_shard(tmp_path: Path) -> None:
    case, _ = new_case(tmp_path, "local", "files")
    attempt(case)
    storage.delete(f"{case.output}/_vqbeam/stats/00000.json")
    storage.delete_folder(f"{case.output}/images")
    report = attempt(case)
    assert report.status == "failed"
    assert "which is gone" in report.reason


def test_an_input_column_called_image_path_is_not_taken_for_images(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from tests.support.shard_runs import write_images

    source = write_images(tmp_path / "images.parquet")
    table = pq.read_table(source)
    pq.write_table(table.append_column("image_path", [[f"some/{row}.png" for row in range(7)]]), source)
    case, _ = new_case(tmp_path, "local", "tokens")
    attempt(case)
    storage.delete(f"{case.output}/_vqbeam/stats/00000.json")
    assert attempt(case).status == "adopted"
    assert faults_of(case) == []


def test_an_object_store_is_only_asked_to_create(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: dict[str, set[str]] = {}
    for name in ("put_file", "pipe_file"):
        real = getattr(MemoryFileSystem, name)

        def call(self, *args, real=real, **options):
            target = args[1] if options.get("mode") and real.__name__ == "put_file" else args[0]
            modes.setdefault(str(target).split("/")[2], set()).add(options.get("mode", "overwrite"))
            return real(self, *args, **options)

        monkeypatch.setattr(MemoryFileSystem, name, call)
    case, _ = new_case(tmp_path, "object store", "files")
    modes.clear()
    assert attempt(case).status == "done"
    assert set.union(*modes.values()) == {"create"}
