"""Rows whose grids differ: into batches of one shape, and behind the step back into their order.

A step pads each batch to its full size, so a row's result does not depend on which rows of its shape come with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa

from transforms.batch import GRID_H, GRID_W, fixed_lists, joined
from transforms.work.prepare import Prepared, Preparer

ORDER = "order"  # int64: the number of a row among those that the model takes
BATCHES_HELD = 4  # times the rows of a batch: how long a row waits for others of its shape
BYTES_HELD = 256 << 20

Shape = tuple[int, int]
Waiting = tuple[int, pa.RecordBatch, np.ndarray]


def with_grids(prepare: Preparer, factor: int) -> Preparer:
    """`prepare` with the grid of each image, an array uint8 [H, W, 3], as the columns `GRID_H` and `GRID_W`."""

    def submit(batch: pa.RecordBatch, first_row: int) -> Callable[[], Prepared]:
        waiting = prepare(batch, first_row)
        return lambda: told(waiting())

    def told(prepared: Prepared) -> Prepared:
        columns = prepared.columns
        for axis, name in enumerate((GRID_H, GRID_W)):
            sides = [array.shape[axis] // factor for array in prepared.arrays]
            columns = columns.append_column(name, pa.array(sides, pa.int32()))
        return replace(prepared, columns=columns)

    return submit


def batches_of_one_shape(parts: Iterable[Prepared], size: int, payload: str) -> Iterator[pa.RecordBatch]:
    """Cut the stream of good rows, which have `GRID_H` and `GRID_W`, into batches of at most `size` rows of one grid.

    A row waits until its batch is full, until `BATCHES_HELD` times `size` further rows have come, or more than
    `BYTES_HELD` wait: so memory is bounded, whatever shapes there are.
    """
    waiting: dict[Shape, list[Waiting]] = {}  # first the shape whose row has waited longest
    number = held = 0
    for part in parts:
        grids = zip(*(part.columns.column(name).to_pylist() for name in (GRID_H, GRID_W)), strict=True)
        for row, (shape, array) in enumerate(zip(grids, part.arrays, strict=True)):
            waiting.setdefault(shape, []).append((number, part.columns.slice(row, 1), array))
            number += 1
            held += array.nbytes
            due = [shape] if len(waiting[shape]) == size else []
            while due or (waiting and (held > BYTES_HELD or number - _oldest(waiting) > BATCHES_HELD * size)):
                rows = waiting.pop(due.pop() if due else next(iter(waiting)))
                held -= sum(array.nbytes for _, _, array in rows)
                yield _batch(rows, payload)
    for rows in waiting.values():
        yield _batch(rows, payload)


def _oldest(waiting: dict[Shape, list[Waiting]]) -> int:
    return next(iter(waiting.values()))[0][0]


def _batch(rows: list[Waiting], payload: str) -> pa.RecordBatch:
    batch = joined([columns for _, columns, _ in rows])
    batch = batch.append_column(ORDER, pa.array([number for number, _, _ in rows], pa.int64()))
    return batch.append_column(payload, fixed_lists(np.stack([array for _, _, array in rows])))


def in_order(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows of `batches_of_one_shape` behind the step in the order in which they came, without `ORDER`."""
    waiting: dict[int, pa.RecordBatch] = {}
    first = 0
    for batch in batches:
        numbers = batch.column(ORDER).to_pylist()
        batch = batch.drop_columns([ORDER])
        waiting |= {number: batch.slice(row, 1) for row, number in enumerate(numbers)}
        ready = []
        while first in waiting:
            ready.append(waiting.pop(first))
            first += 1
        if ready:
            yield joined(ready)


def grid_of(batch: pa.RecordBatch) -> Shape:
    """Rows and columns of codes, which all rows of a batch share."""
    return batch.column(GRID_H)[0].as_py(), batch.column(GRID_W)[0].as_py()
