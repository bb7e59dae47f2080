"""Shards of an export, cut off at every write: the next attempt leaves the same bytes, in every layout."""

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.injected_faults import Killed, counted_writes, fail_at, kill_at, once_at
from tests.support.shard_runs import ShardCase, attempt, faults_of, plan_of, snapshot
from transforms import storage
from transforms.engine.job import Job
from transforms.inputs.plan import make_shards, plan_sources
from transforms.inputs.request import InputRequest, InputSchema
from transforms.inputs.sorted_runs import equal_shards
from transforms.ledger.plan import store_segment
from transforms.outputs.layout import TOKEN_LAYOUTS
from transforms.work.export import MOVED, WRITTEN, CodeGrid, Gather, Shuffle, Sort

ROWS = 4  # one of them without codes, one a duplicate
SHUFFLE, GRID = Shuffle(5, "site", unique=True), CodeGrid(4, 64)
KINDS = ("sort", *TOKEN_LAYOUTS)
STORES = ("local", "object store")
BOTH = (True, False)  # before a write takes effect, and after


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def case_of(work: Any, schema: InputSchema, shards: list[Any], output: str, temp: Path) -> ShardCase:
    job = Job(work, output, schema, {"command": "export"}, version="1", max_error_rate=1.0, temp_dir=str(temp))
    store_segment(output, plan_of(job, schema), shards)
    return ShardCase(job, shards)


@pytest.fixture(scope="module", params=KINDS)
def planned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ShardCase:
    """The job that sorts, or that which writes a layout of what has been sorted."""
    home = tmp_path_factory.mktemp("export")
    codes = pa.array([[n, 1, 2, 3] if n else None for n in range(ROWS)], pa.list_(pa.uint16()))
    columns = {"key": [f"k.{n}" for n in range(ROWS)], "caption": ["c"] * ROWS, "encoding": codes}
    pq.write_table(pa.table({**columns, "site": ["a", "b", "b", None]}), home / "tokens.parquet")
    read = plan_sources(
        InputRequest((str(home / "tokens.parquet"),), kind="codes", written=WRITTEN, moved=MOVED), 10_000
    )
    sorting = case_of(Sort(SHUFFLE, GRID), read.schema, make_shards(read.pieces, 10_000), f"{home}/sorted", home)
    assert attempt(sorting, sorting.job.work.step("cpu")).status == "done"
    if request.param == "sort":
        return sorting
    tables = InputRequest((f"{home}/sorted/data/*.parquet",), kind="codes", input_format="parquet")
    sources = [piece.slice.source for piece in plan_sources(tables, 1 << 62).pieces]
    schema = replace(read.schema, key="key", caption="caption", codes="encoding")
    shards = equal_shards(sources, 0, 10_000, unique=True)
    return case_of(Gather(SHUFFLE, GRID, request.param), schema, shards, f"{home}/out", home)


def anew(planned: ShardCase, store: str, home: Path) -> tuple[ShardCase, str]:
    """The job with a new output folder, and the path of that folder in its store."""
    name = f"out-{uuid.uuid4().hex[:8]}"
    output = storage.absolute(f"memory://{name}" if store == "object store" else str(home / name))
    work, schema = planned.job.work, planned.job.schema
    return case_of(work, schema, planned.shards, output, home), storage.filesystem(output)[1]


def tried(case: ShardCase) -> str:
    report = attempt(case, case.job.work.step("cpu"))
    return report.status


def undisturbed(planned: ShardCase, store: str, home: Path) -> tuple[int, dict[str, bytes]]:
    """How many writes an attempt makes, and what it leaves."""
    case, folder = anew(planned, store, home)
    with counted_writes(store, folder) as writes:
        assert tried(case) == "done"
    assert faults_of(case) == []
    assert writes.count >= 2
    return writes.count, snapshot(case.output)


@pytest.mark.parametrize("store", STORES)
def test_a_shard_killed_at_any_write_ends_as_if_it_had_not_been(store: str, planned: ShardCase, tmp_path: Path) -> None:
    count, expected = undisturbed(planned, store, tmp_path)
    killed = 0
    for number in range(count):
        for before in BOTH:
            case, folder = anew(planned, store, tmp_path)
            with counted_writes(store, folder) as writes:
                writes.hook = kill_at(number, before)
                try:
                    tried(case)
                except Killed:
                    killed += 1
            assert tried(case) in ("done", "adopted", "skipped")
            assert snapshot(case.output) == expected, (number, before)
            assert faults_of(case) == []
    assert killed >= count


def test_a_store_that_fails_and_a_second_attempt_at_any_write_change_nothing(
    planned: ShardCase, tmp_path: Path
) -> None:
    store = STORES[0]
    count, expected = undisturbed(planned, store, tmp_path)
    statuses = set()
    for number in range(count):
        case, folder = anew(planned, store, tmp_path)
        with counted_writes(store, folder) as writes:
            writes.hook = fail_at(number, True, ConnectionError("the answer was lost"))
            statuses.add(tried(case))
        assert tried(case) in ("done", "adopted", "skipped")
        assert snapshot(case.output) == expected, number
        case, folder = anew(planned, store, tmp_path)
        with counted_writes(store, folder) as writes:
            writes.hook = once_at(number, False, lambda case=case: statuses.add(tried(case)))
            assert tried(case) in ("done", "adopted", "skipped")
        assert snapshot(case.output) == expected, number
        assert faults_of(case) == []
    assert "failed" in statuses
    assert {"adopted", "skipped"} & statuses
