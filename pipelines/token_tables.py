"""What tables of tokens say of their codes, without reading their rows: whether they can go into one export."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from transforms import storage
from transforms.batch import GRID_H, GRID_W
from transforms.errors import UsageError
from transforms.inputs.columns import image_and_codes
from transforms.inputs.formats.parquet import read_footer
from transforms.inputs.provenance import token_provenance

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

READERS = 16
MOST_CODES = 1 << 20  # that codes of unknown origin are taken to be of
SIDES = (GRID_H, GRID_W)


@dataclass(frozen=True)
class TokenTable:
    """`length` codes a row of a codebook of `size`, `codebook` is its id if the table names it. `grid` is the height
    and width of all rows, None if the table does not say it; `by_row` if columns do."""

    length: int
    grid: tuple[int, int] | None
    by_row: bool
    size: int
    codebook: str | None
    columns: tuple[str, ...]
    views: bool  # rows are views of images


def of_one_kind(uris: Sequence[str], code_column: str | None) -> TokenTable:
    """The first of these tables. Raises `UsageError` if they have no codes, or other grids or codebooks."""
    with ThreadPoolExecutor(READERS) as pool:
        tables = list(pool.map(partial(_table, code_column=code_column), uris))
    known = [(uri, table) for uri, table in zip(uris, tables, strict=True) if table is not None]
    if not known:
        raise UsageError(f"{uris[0]} is no readable Parquet file")
    first_uri, first = known[0]
    for uri, table in known:
        if table.length != first.length:
            raise UsageError(
                f"{first_uri} has {first.length:,} codes a row and {uri} {table.length:,}: tables of one grid go into "
                "an export"
            )
        if table.grid and first.grid and table.grid != first.grid:
            raise UsageError(
                f"{first_uri} has grids of {grid_text(first.grid)} codes and {uri} of {grid_text(table.grid)}: tables "
                "of one grid go into an export"
            )
        if table.codebook and first.codebook and table.codebook != first.codebook:
            raise UsageError(
                f"{first_uri} and {uri} were made with other models (codebooks {first.codebook[:12]} and "
                f"{table.codebook[:12]}): their codes mean other things, export them apart"
            )
        if table.views != first.views:
            one, other = (first_uri, uri) if first.views else (uri, first_uri)
            raise UsageError(f"{one} holds views of images and {other} none: export them apart")
    return first


def _table(uri: str, code_column: str | None) -> TokenTable | None:
    """What a table says of its codes; None if it cannot be read, which costs its rows."""
    import pyarrow.parquet as pq
    import pyarrow.types as pt

    footer = read_footer(uri)
    if footer is None:
        return None
    columns = footer.columns
    name = code_column or image_and_codes(columns, uri)[1]
    if name is None or name not in columns.names:
        raise UsageError(f"{uri} has no column of codes; it has {', '.join(columns.names)}", "code_column")
    kind = columns.field(name).type
    if not (_is_list(kind) and pt.is_integer(kind.value_type)):
        raise UsageError(f"{uri}: column {name} holds {kind}, and no lists of codes", "code_column")
    made_by = token_provenance(uri) or {}
    side = int(made_by.get("grid", 0))
    with storage.open_read(uri) as file:
        stored = pq.ParquetFile(file)
        by_row = all(side in columns.names and pt.is_integer(columns.field(side).type) for side in SIDES)
        grid = _grid(uri, stored) if by_row else None
        if pt.is_fixed_size_list(kind):
            length = kind.list_size
        else:
            batch = next(stored.iter_batches(1, columns=[name]), None)
            cell = None if batch is None or not batch.num_rows else batch.column(0)[0].as_py()
            length = len(cell) if isinstance(cell, list) else side * side
    if grid is None and side * side == length:
        grid = side, side
    most = 1 << 16 if kind.value_type.bit_width <= 16 else MOST_CODES
    return TokenTable(
        length=length,
        grid=grid,
        by_row=by_row,
        size=made_by.get("codebook_size") or most,
        codebook=made_by.get("codebook_id"),
        columns=tuple(columns.names),
        views="views" in made_by,
    )


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow.types as pt

    return pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)


def _grid(uri: str, table: pq.ParquetFile) -> tuple[int, int] | None:
    """The height and width that the rows of a table say, None if none does. Raises `UsageError` if they differ, also
    if they have as many codes."""
    sides: list[int] = []
    for side in SIDES:
        found = _values(table, side)
        if len(found) > 1:
            raise UsageError(
                f"{uri} has grids that differ by row ({side} {min(found):,} to {max(found):,}): tables of one grid "
                "go into an export, so encode to one size, or export each shape apart"
            )
        sides += found
    return (sides[0], sides[1]) if len(sides) == 2 else None


def _values(table: pq.ParquetFile, name: str) -> set[int]:
    """The values of a column of integers but null; the ends of their range if the table has statistics."""
    at = next(i for i in range(table.metadata.num_columns) if table.metadata.schema.column(i).path == name)
    told = [table.metadata.row_group(number).column(at).statistics for number in range(table.num_row_groups)]
    if all(each is not None and each.has_min_max for each in told):
        return {value for each in told for value in (each.min, each.max)}
    values = (batch.column(0).unique().to_pylist() for batch in table.iter_batches(columns=[name]))
    return {value for some in values for value in some if value is not None}


def grid_text(grid: tuple[int, int]) -> str:
    """Height x width."""
    return f"{grid[0]:,} x {grid[1]:,}"
