"""Parquet files of a shard: row groups of bounded size, equal bytes for equal rows, rejected rows spooled."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.ledger import tables
from transforms.ledger.tables import ERROR_SCHEMA, ErrorLog, TableWriter

SCHEMA = pa.schema([("n", pa.int32()), ("text", pa.string())])


def batch(start: int, rows: int, letters: int = 1) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"n": range(start, start + rows), "text": ["x" * letters] * rows})


def groups(path: Path) -> list[int]:
    metadata = pq.ParquetFile(path).metadata
    return [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]


def test_row_groups_hold_some_thousand_rows_in_whole_batches(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path / "t.parquet", SCHEMA)
    for start in range(0, 10_000, 1000):
        writer.write(batch(start, 1000))
    writer.close(lambda written: {"vqbeam.shard": "counts"})
    table = pq.read_table(tmp_path / "t.parquet")
    assert table["n"].to_pylist() == list(range(10_000))
    assert table.schema.equals(SCHEMA)
    assert groups(tmp_path / "t.parquet") == [5000, 5000]
    assert pq.read_metadata(tmp_path / "t.parquet").metadata[b"vqbeam.shard"] == b"counts"


def test_big_rows_make_small_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP_BYTES", 10_000)
    writer = TableWriter(tmp_path / "t.parquet", SCHEMA)
    for start in range(0, 40, 4):
        writer.write(batch(start, 4, letters=1000))
    writer.close()
    assert groups(tmp_path / "t.parquet") == [12, 12, 12, 4]


def test_no_more_than_a_row_group_waits_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP_BYTES", 100_000)
    writer = TableWriter(tmp_path / "t.parquet", SCHEMA)
    pa.default_memory_pool().release_unused()
    before = pa.total_allocated_bytes()
    for start in range(0, 4000, 4):
        writer.write(batch(start, 4, letters=1000))
        assert sum(table.nbytes for table in writer._pending) < 100_000
    assert pa.total_allocated_bytes() - before < 1_000_000
    writer.close()


def test_equal_batches_give_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        writer = TableWriter(tmp_path / name, SCHEMA)
        writer.write(batch(0, 10))
        writer.write(batch(10, 5))
        writer.close(lambda written: {"k": "v"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_table_without_rows_still_has_its_schema(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path / "t.parquet", SCHEMA)
    writer.close()
    assert pq.read_table(tmp_path / "t.parquet").schema.equals(SCHEMA)


def test_an_aborted_table_is_gone(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path / "t.parquet", SCHEMA)
    writer.write(batch(0, 10))
    writer.abort()
    assert os.listdir(tmp_path) == []


def test_rejected_rows_are_spooled_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 10)
    log = ErrorLog(tmp_path / "e.parquet")
    for row in range(25):
        log.add(f"key {row}", "uri", "decode", "broken_image", "why")
        assert len(log._rows) < 10
    path = log.close()
    assert path is not None
    table = pq.read_table(path)
    assert table.schema.equals(ERROR_SCHEMA)
    assert table["key"].to_pylist() == [f"key {row}" for row in range(25)]


def test_long_keys_of_rejected_rows_do_not_fill_the_memory(tmp_path: Path) -> None:
    log = ErrorLog(tmp_path / "e.parquet")
    for _ in range(100):
        log.add("k" * 1_000_000, "uri", "decode", "broken_image", "why")
        assert sum(len(row["key"]) for row in log._rows) <= tables.LETTERS_HELD
    path = log.close()
    assert path is not None
    assert pq.read_metadata(path).num_rows == 100


def test_no_rejected_rows_make_no_file(tmp_path: Path) -> None:
    log = ErrorLog(tmp_path / "e.parquet")
    assert log.close() is None
    log.abort()
    assert os.listdir(tmp_path) == []
