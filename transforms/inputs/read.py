"""Slices of sources -> batches, streamed. The first step inside a shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby

import pyarrow as pa

from transforms.inputs.fetch import FetchOptions
from transforms.inputs.formats import BY_NAME
from transforms.inputs.request import InputSchema
from transforms.ledger.types import Slice


def read_slices(
    slices: Iterable[Slice],
    schema: InputSchema,
    options: FetchOptions | None = None,
    notices: Counter[str] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Batches of `rows.batch_schema(schema)`, in order, of all `slices`.

    `notices` counts in words, for the summary, what was left out unasked: a field that the plan does not know, a second
    image of a sample. Raises `SourceChanged` if a source is no longer the planned one, and `ShardFailed`; faults of
    the data are rows.
    """
    options = options or FetchOptions()
    notices = Counter() if notices is None else notices
    for name, parts in groupby(slices, key=lambda part: part.source.format):
        yield from BY_NAME[name].read(parts, schema, options, notices)
