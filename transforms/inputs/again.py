"""Some rows of a shard, read again once it is done: to show beside what became of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from transforms.inputs.fetch import MAX_IMAGE_BYTES
from transforms.inputs.formats import parquet, read_slices
from transforms.inputs.request import InputSchema
from transforms.ledger.types import Slice

MOST_BYTES = 256 << 20  # of rows that are read one after the other to find others, for a shard


def read_again(
    slices: Sequence[Slice], wanted: Collection[int], schema: InputSchema, max_bytes: int = MAX_IMAGE_BYTES
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows with these numbers, counted over all slices of the shard, in order, a batch of one each.

    Slices without a wanted row are not opened if their rows were counted, and of Parquet the wanted rows alone are
    read. Rows behind too many others are left out. Raises as `read_slices`.
    """
    left = sorted(wanted)
    first, read = 0, 0
    for part in slices:
        while left and left[0] < first:
            left.pop(0)
        if not left or read > MOST_BYTES:
            return
        rows = None if part.stop is None else part.stop - part.start
        inside = [row for row in left if rows is None or row < first + rows]
        if rows is not None and part.source.format == parquet.FORMAT.name:
            for row in inside:
                start = part.start + row - first
                for batch in read_slices([replace(part, start=start, stop=start + 1)], schema, max_bytes):
                    yield row, batch
        elif inside:
            at = first
            for batch in read_slices([part], schema, max_bytes):
                found = [row for row in inside if at <= row < at + batch.num_rows]
                yield from ((row, batch.slice(row - at, 1)) for row in found)
                at += batch.num_rows
                read += batch.nbytes
                if (at > inside[-1] and rows is not None) or at > left[-1] or read > MOST_BYTES:
                    break
            if rows is None:
                rows = at - first
        first += rows or 0
