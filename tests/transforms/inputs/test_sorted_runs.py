"""Shards of exactly equal size, of rows in order, however they lie in sorted tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.inputs import sorted_runs
from transforms.inputs.sorted_runs import ORDER, PLACE_BITS, equal_shards
from transforms.ledger.types import Shard, Source

Row = tuple[int, int, int, int]


def sorted_tables(folder: Path, rows: list[Row], tables: int) -> list[Source]:
    sources = []
    for number in range(tables):
        columns = list(zip(*sorted(rows[number::tables]), strict=True)) or [[]] * 4
        table = pa.table([pa.array(c, f.type) for c, f in zip(columns, ORDER, strict=True)], ORDER.names)
        path = folder / f"{number}.parquet"
        pq.write_table(table, path, row_group_size=5)
        sources.append(Source(str(path), "parquet", path.stat().st_size, ""))
    return sources


def read(shards: list[Shard], split: int) -> list[list[Row]]:
    found = []
    for shard in shards:
        rows: list[Row] = []
        for part in shard.slices:
            table = pq.read_table(part.source.uri).slice(part.start, (part.stop or 0) - part.start)
            rows += zip(*(column.to_pylist() for column in table.columns), strict=True)
        assert all(row[0] == split for row in rows)
        found.append(sorted(rows))
    return found


@pytest.mark.parametrize("at_once", [7, 1 << 20])
@pytest.mark.parametrize("unique", [False, True])
@pytest.mark.parametrize("tables", [1, 3])
def test_shards_are_the_order_cut_into_equal_parts(
    tables: int, unique: bool, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sorted_runs, "ROWS_PLANNED", at_once)
    random = np.random.default_rng(1)
    firsts = random.integers(0, 1 << PLACE_BITS, 20, np.int64)
    rows = [
        (int(random.integers(2)), int(random.choice(firsts)), int(random.integers(2)), int(random.integers(3)))
        for _ in range(90)
    ]
    rows.append((0, (1 << PLACE_BITS) - 1, 0, 0))
    sources = sorted_tables(tmp_path, rows, tables)
    for split in (0, 1):
        mine = sorted(row for row in rows if row[0] == split)
        found = read(equal_shards(sources, split, 8, unique=unique), split)
        assert [row for shard in found for row in shard] == mine
        sizes = [len({row[:3] for row in shard} if unique else shard) for shard in found]
        assert set(sizes[:-1]) <= {8}
        assert 0 < sizes[-1] <= 8
    assert equal_shards(sources, 2, 8, unique=unique) == []
