"""Parquet files, planned and counted by their footers; `parquet_rows` reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from transforms import storage
from transforms.errors import UsageError
from transforms.inputs.file_list import Found
from transforms.inputs.formats.format import (
    PEEKED_FILES,
    PEEKERS,
    Format,
    Piece,
    Planned,
    PlanTask,
)
from transforms.inputs.formats.parquet_rows import PAGE_BUFFER, read
from transforms.inputs.request import InputSchema
from transforms.ledger.types import Slice


@dataclass(frozen=True)
class Footer:
    """`groups` are the rows of each row group."""

    columns: pa.Schema
    groups: tuple[int, ...]

    @property
    def rows(self) -> int:
        return sum(self.groups)


def read_footer(uri: str) -> Footer | None:
    """None if the file is no whole Parquet: reading it makes that a rejected row.

    Raises `ShardFailed` and `FileNotFoundError`.
    """
    with storage.open_read(uri, buffer_size=PAGE_BUFFER) as file:
        try:
            parquet = pq.ParquetFile(file)
        except pa.ArrowInvalid:
            return None
        groups = (parquet.metadata.row_group(index).num_rows for index in range(parquet.num_row_groups))
        return Footer(parquet.schema_arrow, tuple(groups))


def plan(task: PlanTask) -> Planned:
    columns, row_bytes, footers = _peek(task.inputs.files)
    schema = task.table_schema(columns)

    fresh = [found for found in task.files if found.uri not in footers]
    large = [found.uri for found in fresh if found.info.size / row_bytes > task.rows_per_shard]
    with ThreadPoolExecutor(PEEKERS) as pool:
        footers.update(zip(large, pool.map(read_footer, large), strict=True))
    pieces: list[Piece] = []
    for found in task.files:
        footer = footers.get(found.uri)
        if footer is None:
            rows = min(math.ceil(found.info.size / row_bytes), task.rows_per_shard)
            pieces.append(Piece(Slice(found.source("parquet")), max(1, rows)))
            continue
        source = found.source("parquet", footer.rows)
        ranges = cuts(footer.groups, task.rows_per_shard) or [(0, 0)]
        pieces += [Piece(Slice(source, start, stop), stop - start) for start, stop in ranges]
    return pieces, schema


def _peek(files: Sequence[Found]) -> tuple[pa.Schema, float, dict[str, Footer | None]]:
    """Columns, bytes a row, and footers: those of the first file, and of some more while columns have no type (all
    null) or files no rows."""
    footers: dict[str, Footer | None] = {}
    rows = size = 0
    columns: pa.Schema | None = None
    for found in files[:PEEKED_FILES]:
        footer = footers[found.uri] = read_footer(found.uri)
        if footer is None:
            continue
        rows += footer.rows
        size += found.info.size
        columns = footer.columns if columns is None else _with_types(columns, footer.columns)
        if footer.rows and not any(pt.is_null(field.type) for field in columns):
            break
    if columns is None:
        raise UsageError(f"{files[0].uri}: this is no readable Parquet file")
    return columns, max(1.0, size / rows) if rows else 1.0, footers


def _with_types(columns: pa.Schema, later: pa.Schema) -> pa.Schema:
    """`columns`, with types from `later` for those that have none."""
    return pa.schema(
        [
            pa.field(field.name, later.field(field.name).type)
            if pt.is_null(field.type) and field.name in later.names
            else field
            for field in columns
        ]
    )


def cuts(groups: tuple[int, ...], rows_per_shard: int) -> list[tuple[int, int]]:
    """Row ranges of at most `rows_per_shard`: whole row groups together, and groups larger than that cut inside."""
    ranges: list[tuple[int, int]] = []
    start = end = 0
    for rows in groups:
        if end > start and end + rows - start > rows_per_shard:
            ranges.append((start, end))
            start = end
        end += rows
        while end - start > rows_per_shard:
            pieces = math.ceil((end - start) / rows_per_shard)
            middle = start + math.ceil((end - start) / pieces)
            ranges.append((start, middle))
            start = middle
    if end > start:
        ranges.append((start, end))
    return ranges


def count(part: Slice, enough: int, schema: InputSchema) -> int:
    footer = read_footer(part.source.uri)
    if footer is None:
        return 1  # the one rejected row that stands for the file
    return (footer.rows if part.stop is None else min(part.stop, footer.rows)) - part.start


FORMAT = Format("parquet", (".parquet", ".pq"), ("images", "codes", "prompts"), plan, read, count)
