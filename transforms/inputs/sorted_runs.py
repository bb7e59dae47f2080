"""Tables whose rows are sorted, and the shards of equal size that their rows make together, in the order of all.

Planning of `vqbeam export`: a shard of the output is a range of each table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.ledger.types import Shard, Slice, Source

SPLIT = "vqbeam_split"  # int32: the number of the split
PLACES = (
    "vqbeam_place_1",
    "vqbeam_place_2",
    "vqbeam_place_3",
)  # int64: most significant first
ORDER = pa.schema([(SPLIT, pa.int32()), *((name, pa.int64()) for name in PLACES)])
PLACE_BITS = 63
ROWS_PLANNED = 1 << 20  # at once, some 100 MB


def equal_shards(sources: Sequence[Source], split: int, rows_per_shard: int, *, unique: bool) -> list[Shard]:
    """Shards of exactly `rows_per_shard` rows, but the last, of one split of sorted tables.

    With `unique`, of rows that agree in the first two places only the first counts; the others are in its shard.
    """
    extents: dict[tuple[int, int], tuple[int, int]] = {}  # of a shard in a table: its first row, and the end
    kept = 0
    for places, tables, rows in _in_order(sources, split):
        first, second, _ = places
        again = np.zeros(len(rows), bool)
        if unique:
            again[1:] = (first[1:] == first[:-1]) & (second[1:] == second[:-1])
        shards = (kept + np.cumsum(~again) - 1) // rows_per_shard
        kept += int(np.count_nonzero(~again))
        pairs = shards * len(sources) + tables
        found, begins = np.unique(pairs, return_index=True)
        ends = len(pairs) - 1 - np.unique(pairs[::-1], return_index=True)[1]
        for pair, begin, end in zip(found.tolist(), begins, ends, strict=True):
            place = divmod(pair, len(sources))
            start = extents[place][0] if place in extents else int(rows[begin])
            extents[place] = start, int(rows[end]) + 1
    slices: dict[int, list[Slice]] = {}
    for (shard, table), (start, stop) in sorted(extents.items()):
        slices.setdefault(shard, []).append(Slice(sources[table], start, stop))
    return [Shard(number, tuple(parts)) for number, parts in sorted(slices.items())]


def _in_order(sources: Sequence[Source], split: int) -> Iterator[tuple[list[np.ndarray], np.ndarray, np.ndarray]]:
    """The places of the rows of a split with the numbers of their tables and rows, in order, a range at a time. Rows
    that agree in the first place come together."""
    ranges = max(1, sum(_rows(source.uri) for source in sources) // ROWS_PLANNED)
    cuts = [(number << PLACE_BITS) // ranges for number in range(ranges + 1)]
    for low, high in pairwise(cuts):
        parts = [part for table, source in enumerate(sources) for part in _read(source.uri, table, split, low, high)]
        if parts:
            columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
            order = np.lexsort(columns[::-1])
            *places, tables, rows = (column[order] for column in columns)
            yield places, tables, rows


def _rows(uri: str) -> int:
    with storage.open_read(uri) as file:
        return int(pq.read_metadata(file).num_rows)


def _read(uri: str, table: int, split: int, low: int, high: int) -> Iterator[tuple[np.ndarray, ...]]:
    with storage.open_read(uri) as file:
        stored = pq.ParquetFile(file)
        first_row = 0
        for group in range(stored.num_row_groups):
            about = stored.metadata.row_group(group)
            if _may_hold(about, _leaf(stored, SPLIT), split, split + 1) and _may_hold(
                about, _leaf(stored, PLACES[0]), low, high
            ):
                read = stored.read_row_group(group, columns=list(ORDER.names))
                columns = {name: read[name].to_numpy() for name in ORDER.names}
                wanted = (columns[SPLIT] == split) & (columns[PLACES[0]] >= low)
                if high < 1 << PLACE_BITS:
                    wanted &= columns[PLACES[0]] < high
                rows = np.flatnonzero(wanted)
                if len(rows):
                    yield (*(columns[name][rows] for name in PLACES), np.full(len(rows), table), rows + first_row)
            first_row += about.num_rows


def _leaf(stored: pq.ParquetFile, name: str) -> int:
    return next(i for i in range(stored.metadata.num_columns) if stored.metadata.schema.column(i).path == name)


def _may_hold(group: pq.RowGroupMetaData, column: int, low: int, high: int) -> bool:
    held = group.column(column).statistics
    return held is None or not held.has_min_max or (held.min < high and held.max >= low)
