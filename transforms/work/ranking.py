"""Pictures of one prompt in the order of their scores, and the best of them kept. Runs behind the model step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

from transforms.batch import RANK, ROW, SAMPLE, joined
from transforms.errors import RowFiltered
from transforms.work.prepare import Refusal, refusal_of

NOT_BEST = "not_best"  # the filter's name in the counts


def ranked(
    batches: Iterable[pa.RecordBatch], score: str, keep_best: int | None = None
) -> Iterator[pa.RecordBatch | Refusal]:
    """Rows come in with a column `score`, those of one prompt (`row`) one after the other; they go out with `rank`.

    Of each prompt the rows go out best first, from rank 1, equals by `sample`; past `keep_best` they are filtered.
    What cannot win any more goes at once, so that no more is held than what one prompt keeps, and a batch.
    """
    held: pa.RecordBatch | None = None
    for batch in batches:
        done: list[pa.RecordBatch] = []
        for part in _by_row(batch):
            if held is not None and held.column(ROW)[0] != part.column(ROW)[0]:
                done.append(_with_ranks(held))
                held = None
            pool = part if held is None else joined([held, part])
            order = _order(pool, score)
            held = _rows(pool, order[:keep_best])
            for i in order[keep_best:] if keep_best is not None else ():
                yield refusal_of(pool, i, "rank", RowFiltered(NOT_BEST))
        if done:
            yield joined(done)
    if held is not None:
        yield _with_ranks(held)


def _by_row(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
    """A batch cut between prompts."""
    rows = batch.column(ROW).to_numpy()
    starts = [0, *(np.flatnonzero(np.diff(rows)) + 1).tolist(), len(rows)]
    return [batch.slice(start, stop - start) for start, stop in pairwise(starts)]


def _order(batch: pa.RecordBatch, score: str) -> list[int]:
    """Best first."""
    scores, samples = batch.column(score).to_numpy(), batch.column(SAMPLE).to_numpy()
    order: list[int] = np.lexsort((samples, -scores)).tolist()
    return order


def _with_ranks(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.append_column(RANK, pa.array(np.arange(1, batch.num_rows + 1, dtype=np.int32)))


def _rows(batch: pa.RecordBatch, order: list[int]) -> pa.RecordBatch:
    """Rows in this order; by slices, since taking from lists builds an index eight times the size of the pixels."""
    return joined([batch.slice(i, 1) for i in order])
