"""How many rows a slice really has, counted without reading what is in them. For `--limit`, when planning."""

from __future__ import annotations

import pyarrow as pa

from transforms.inputs.formats import parquet, webdataset
from transforms.ledger.types import Slice


def count_rows(part: Slice, enough: int) -> int:
    """Rows of a slice as reading it gives them, broken ones too; counting ends at `enough`."""
    source = part.source
    if source.rows is not None and part.stop is not None:
        return min(part.stop, source.rows) - part.start
    if source.format == "parquet":
        return _parquet_rows(part)
    rows = 0
    with webdataset.open_tar(source.uri) as stream:
        try:
            for _ in webdataset.samples(stream, part.start, part.stop, lambda extension: 0):
                rows += 1
                if rows >= enough:
                    return rows
        except webdataset.BrokenArchive as broken:
            rows += part.start <= broken.number and (part.stop is None or broken.number < part.stop)
    return rows


def _parquet_rows(part: Slice) -> int:
    try:
        rows = parquet.read_footer(part.source.uri).rows
    except pa.ArrowInvalid:
        return 1  # the one rejected row that stands for the file
    return (rows if part.stop is None else min(part.stop, rows)) - part.start
