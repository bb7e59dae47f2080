"""The input formats, one file each and one line each in `FORMATS`, and what the format of a source decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby

import pyarrow as pa

from transforms.inputs.fetch import MAX_IMAGE_BYTES
from transforms.inputs.formats import files, parquet, prompts, tables, webdataset
from transforms.inputs.formats.format import Format
from transforms.inputs.request import InputSchema, Kind
from transforms.ledger.types import Slice

FORMATS = (
    parquet.FORMAT,
    webdataset.FORMAT,
    files.FORMAT,
    tables.CSV,
    tables.TSV,
    tables.JSONL,
    tables.TXT,
    tables.METADATA,
    prompts.FORMAT,
)
BY_NAME = {format.name: format for format in FORMATS}


def formats_of(kind: Kind) -> dict[str, Format]:
    """The formats that hold rows of a kind, by name in alphabetical order."""
    return {name: format for name, format in sorted(BY_NAME.items()) if kind in format.kinds}


def read_slices(
    slices: Iterable[Slice],
    schema: InputSchema,
    max_bytes: int = MAX_IMAGE_BYTES,
    notices: Counter[str] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Batches of `rows.batch_schema(schema)`, in order, of all `slices`: the first step inside a shard.

    An image beyond `max_bytes` is a rejected row. `notices` counts in words, for the summary, what was left out
    unasked: a field that the plan does not know, a second image of a sample. Raises `SourceChanged` if a source is no
    longer the planned one, and `ShardFailed`; faults of the data are rows.
    """
    notices = Counter() if notices is None else notices
    for name, parts in groupby(slices, key=lambda part: part.source.format):
        yield from BY_NAME[name].read(parts, schema, max_bytes, notices)


def count_rows(part: Slice, enough: int, schema: InputSchema) -> int:
    """Rows of a slice as reading it gives them, rejected ones too, at little cost; counting may end at `enough`."""
    source = part.source
    if source.rows is not None and part.stop is not None:
        return min(part.stop, source.rows) - part.start
    count = BY_NAME[source.format].count
    assert count is not None, f"the plan of format {source.format} states all rows"
    return count(part, enough, schema)
