"""Some rows of a shard, read again once it is done: to show beside what became of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import pyarrow as pa

from transforms.inputs.fetch import MAX_IMAGE_BYTES
from transforms.inputs.formats import count_rows, parquet, read_slices, webdataset
from transforms.inputs.request import InputSchema
from transforms.ledger.types import Slice

SEEK = (parquet.FORMAT.name, webdataset.FORMAT.name)  # formats that can begin at any row
MOST_BYTES = 256 << 20  # of rows that are read one after the other to find others, for a shard


def read_again(
    slices: Sequence[Slice], wanted: Collection[int], schema: InputSchema, max_bytes: int = MAX_IMAGE_BYTES
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows with these numbers, counted over all slices of the shard, in order, a batch of one each.

    Slices without a wanted row are not opened if their rows were counted, and of Parquet and tars the wanted rows alone
    are read. Rows behind too many others are left out. Raises as `read_slices`.
    """
    left = sorted({*wanted})
    first = read = 0
    for part in slices:
        left = left[bisect_left(left, first) :]
        if not left or read > MOST_BYTES:
            return
        if part.stop is not None:
            rows = part.stop - part.start
        else:  # only reading tells; of the last it need not be known
            rows = left[-1] + 1 - first
            rows = rows if part is slices[-1] else count_rows(part, rows, schema)
        inside = left[: bisect_left(left, first + rows)]
        first += rows
        if part.source.format in SEEK:
            for start, stop in _runs(inside):
                begin = part.start + start - (first - rows)
                run = replace(part, start=begin, stop=begin + stop - start)
                yield from _numbered(read_slices([run], schema, max_bytes), start)
        elif inside:
            asked = {*inside}
            for number, row in _numbered(read_slices([part], schema, max_bytes), first - rows):
                if number in asked:
                    yield number, row
                else:
                    read += row.nbytes
                if number >= inside[-1] or read > MOST_BYTES:
                    break


def _numbered(batches: Iterator[pa.RecordBatch], first: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Each row, a batch of its own, with its number."""
    for batch in batches:
        for i in range(batch.num_rows):
            yield first + i, batch.slice(i, 1)
        first += batch.num_rows


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """[start, stop) of consecutive numbers among some that are sorted."""
    for _, found in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in found]
        yield run[0], run[-1] + 1
