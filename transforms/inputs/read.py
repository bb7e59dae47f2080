"""Slices of sources -> canonical batches, streamed. The first step inside a shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby

import pyarrow as pa

from transforms.inputs.fetch import FetchOptions
from transforms.inputs.formats import files, parquet, prompts, tables, webdataset
from transforms.inputs.formats.files import check_unchanged
from transforms.inputs.request import InputSchema
from transforms.ledger.types import INLINE, Slice


def read_slices(
    slices: Iterable[Slice],
    schema: InputSchema,
    options: FetchOptions | None = None,
    notices: Counter[str] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Batches of `canonical.batch_schema(schema)`, in order, of all `slices`.

    `notices` counts what was left out though nobody asked for that (a field that the plan does not know, a second image
    of a sample), in words for the summary. Raises `SourceChanged` when a source is not the planned one any more, and
    `ShardFailed`; faults of the data are rows.
    """
    options = options or FetchOptions()
    notices = Counter() if notices is None else notices
    for name, parts in groupby(slices, key=lambda part: part.source.format):
        if name == "files":
            yield from files.read((part.source for part in parts), schema, options, notices)
            continue
        for part in parts:
            check_unchanged(part.source)
            if name == "parquet":
                yield from parquet.read(part, schema, notices)
            elif name == INLINE:
                yield from prompts.read(part, schema)
            elif name == "webdataset":
                yield from webdataset.read(part, schema, options, notices)
            else:
                yield from tables.read(part, schema, notices)
