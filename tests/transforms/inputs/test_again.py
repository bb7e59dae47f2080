"""Rows of a shard are found again by their numbers, in any format, without reading all of it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.images import encoded, scene
from transforms import storage
from transforms.inputs import again
from transforms.inputs.again import read_again
from transforms.inputs.formats import read_slices
from transforms.inputs.plan import make_shards, plan_sources
from transforms.inputs.request import InputRequest, InputSchema
from transforms.ledger.types import Shard

ROWS = 12


def data(row: int) -> bytes:
    return encoded(scene(20 + row, 20), "PNG")


def as_parquet(folder: Path) -> str:
    for part in range(2):
        rows = range(part * 6, part * 6 + 6)
        table = {"key": [f"k{row:02d}" for row in rows], "image": [data(row) for row in rows]}
        pq.write_table(pa.table(table), folder / f"{part}.parquet", row_group_size=2)
    return str(folder / "*.parquet")


def as_tars(folder: Path) -> str:
    for part in range(2):
        with tarfile.open(folder / f"{part}.tar", "w") as tar:
            for row in range(part * 6, part * 6 + 6):
                member = tarfile.TarInfo(f"k{row:02d}.png")
                member.size = len(data(row))
                tar.addfile(member, io.BytesIO(data(row)))
    return str(folder / "*.tar")


def as_files(folder: Path) -> str:
    for row in range(ROWS):
        (folder / f"k{row:02d}.png").write_bytes(data(row))
    return str(folder)


def as_table(folder: Path) -> str:
    as_files(folder)
    lines = ["key,image,caption", *[f"k{row:02d},k{row:02d}.png,c" for row in range(ROWS)]]
    (folder / "rows.csv").write_text("\n".join(lines))
    return str(folder / "rows.csv")


MAKERS = [as_parquet, as_tars, as_files, as_table]


def planned(pattern: str, rows_per_shard: int) -> tuple[InputSchema, list[Shard]]:
    request = InputRequest((pattern,), kind="images")
    planned = plan_sources(request, rows_per_shard)
    return planned.schema, list(make_shards(planned.pieces, rows_per_shard))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("rows_per_shard", [5, 100])
def test_rows_are_those_with_these_numbers(tmp_path: Path, make: Callable[[Path], str], rows_per_shard: int) -> None:
    schema, shards = planned(make(tmp_path), rows_per_shard)
    found = [
        (number, batch.column("key")[0].as_py())
        for shard in shards
        for number, batch in read_again(shard.slices, {0, 3, 4}, schema)
    ]
    every = [
        (number, batch.column("key")[0].as_py())
        for shard in shards
        for number, batch in read_again(shard.slices, range(ROWS), schema)
    ]
    assert sorted(key for _, key in every) == [f"k{row:02d}" for row in range(ROWS)]
    assert found == [(number, key) for number, key in every if number in (0, 3, 4)]
    assert {0, 3} <= {number for number, _ in found}


def test_files_without_a_wanted_row_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema, (shard,) = planned(as_files(tmp_path), 100)
    read: list[str] = []
    read_bytes = storage.read_bytes
    monkeypatch.setattr(storage, "read_bytes", lambda uri, *limit: read.append(uri) or read_bytes(uri, *limit))
    ((_, batch),) = read_again(shard.slices, {7}, schema)
    assert [Path(uri).name for uri in read] == ["k07.png"]
    assert Image.open(io.BytesIO(batch.column("image")[0].as_py())).size == (27, 20)


def test_rows_far_behind_others_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema, (shard,) = planned(as_table(tmp_path), 100)
    monkeypatch.setattr(again, "MOST_BYTES", 0)
    assert [number for number, _ in read_again(shard.slices, {0, 1, 11}, schema)] == [0, 1]


@pytest.mark.parametrize("make", [as_parquet, as_tars])
def test_of_tables_and_tars_the_wanted_rows_alone_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], str]
) -> None:
    schema, (shard,) = planned(make(tmp_path), 100)
    read: list[str] = []

    def noted(*asked: Any) -> Iterator[pa.RecordBatch]:
        for batch in read_slices(*asked):
            read.extend(batch.column("key").to_pylist())
            yield batch

    monkeypatch.setattr(again, "read_slices", noted)
    assert [number for number, _ in read_again(shard.slices, {2, 3, 4, 9}, schema)] == [2, 3, 4, 9]
    assert read == ["k02", "k03", "k04", "k09"]


def test_no_rows_are_no_reads(tmp_path: Path) -> None:
    schema, (shard,) = planned(as_files(tmp_path), 100)
    (tmp_path / "k00.png").unlink()
    assert list(read_again(shard.slices, (), schema)) == []
