"""A shard that is done again, cut off and failing at every write: the old version or the new one, and never less."""

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from tests.support.injected_faults import STORES, Killed, counted_writes, fail_at, kill_at
from tests.support.shard_runs import LAYOUTS, ShardCase, attempt, faults_of, shard_case, snapshot, write_images
from tests.support.shard_runs import write_tokens as write_codes
from transforms import storage
from transforms.ledger.folder import OutputFolder
from transforms.ledger.retry import Redoing, request_rejected, withdraw_requests
from transforms.ledger.totals import pending_shards

SHORT, LONG = 4, 5


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def begun(folder: Path, store: str, layout: str) -> tuple[ShardCase, str]:
    """A finished shard whose source has grown since, with the request to do it again; the path of its folder."""
    name = f"out-{uuid.uuid4().hex[:8]}"
    output = storage.absolute(f"memory://{name}" if store == "object store" else str(folder / name))
    write = write_images if layout == "tokens" else write_codes
    write(folder / ("images.parquet" if layout == "tokens" else "tokens.parquet"), SHORT)
    case = shard_case(folder, layout, output, SHORT)
    case = replace(case, job=replace(case.job, take_changed=True))
    assert attempt(case).status == "done"
    write(Path(case.shards[0].slices[0].source.uri), LONG)
    assert request_rejected(output) == 1
    return case, storage.filesystem(output)[1]


def content(output: str) -> dict[str, bytes]:
    """What a reader of the folder gets."""
    found = snapshot(output)
    return {name: data for name, data in found.items() if not name.startswith("_vqbeam/")}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_shard_that_is_done_again_is_replaced_by_its_new_version(tmp_path: Path, store: str, layout: str) -> None:
    case, _ = begun(tmp_path, store, layout)
    old = content(case.output)
    assert pending_shards(case.output, 1) == [0]
    assert attempt(case).status == "done"
    assert pending_shards(case.output, 1) == []
    assert content(case.output) != old
    assert faults_of(case) == []
    assert attempt(case).status == "skipped"
    left = [name for name in snapshot(case.output, hidden=True) if "/redone/" in name or "/retry/" in name]
    assert left == []


@pytest.mark.parametrize(
    ("store", "layout", "fault"),
    [
        ("local", "tokens", "killed"),
        ("local", "tokens", "failed"),
        ("object store", "tokens", "killed"),
        ("local", "files", "killed"),
        ("object store", "files", "failed"),
    ],
    indirect=["store"],
)
def test_a_retry_cut_off_at_any_write_keeps_a_whole_version(
    tmp_path: Path, store: str, layout: str, fault: str
) -> None:
    case, folder = begun(tmp_path, store, layout)
    old = content(case.output)
    with counted_writes(store, folder) as writes:
        assert attempt(case).status == "done"
    new, count = content(case.output), writes.count
    for number in range(count):
        for before in (True, False) if layout == "tokens" else (number % 2 == 0,):
            case, folder = begun(tmp_path, store, layout)
            stopped = kill_at(number, before)
            if fault == "failed":
                stopped = fail_at(number, before, ConnectionError("the answer was lost"))
            with counted_writes(store, folder) as writes:
                writes.hook = stopped
                try:
                    attempt(case)
                except Killed:
                    assert fault == "killed"
            now = content(case.output)
            assert set(now) >= set(old), (number, before)
            assert all(now[name] in (old.get(name), new.get(name)) for name in now), (number, before)
            withdraw_requests(
                case.output
            )  # as a run without the option does: it leaves what has begun to take its place
            if pending_shards(case.output, 1):
                assert attempt(case).status in ("done", "adopted")
            assert content(case.output) in (old, new), (number, before)
            assert faults_of(case) == []
            request_rejected(case.output)
            assert attempt(case).status in ("done", "adopted")
            assert content(case.output) == new
            assert faults_of(case) == []


def test_a_request_that_is_withdrawn_leaves_the_shard_as_it_is(tmp_path: Path) -> None:
    case, _ = begun(tmp_path, "local", "tokens")
    before = content(case.output)
    half = Redoing(OutputFolder(case.output), "00000").beside([]).root
    fsspec.filesystem("file").makedirs(f"{half}/data")
    (Path(half) / "data" / "00000.parquet").write_bytes(b"half")
    withdraw_requests(case.output)
    assert attempt(case).status == "skipped"
    assert content(case.output) == before
    assert not list((Path(case.output) / "_vqbeam" / "redone").rglob("*.parquet"))


def test_what_is_left_of_a_new_version_with_gaps_is_made_anew(tmp_path: Path) -> None:
    case, folder = begun(tmp_path, "local", "files")
    with counted_writes("local", folder) as writes:
        writes.hook = lambda number, before: None
        redoing = Redoing(OutputFolder(case.output), "00000")
        mark = Path(redoing.beside([]).stats("00000"))
        mark.parent.mkdir(parents=True)
        mark.write_text('{"objects": [{"path": "data/00000.parquet", "size": 5}], "rows_rejected": 0}')
    assert attempt(case).status == "done"
    assert faults_of(case) == []
