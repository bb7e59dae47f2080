"""The rows of a `metadata.parquet`, which describes a folder of images as a `metadata.jsonl` does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.errors import UsageError
from transforms.inputs.formats.parquet_faults import explained

BATCH_ROWS = 1024


def parquet_records(uri: str) -> Iterator[dict[str, Any]]:
    """The rows, in order, with values that json could hold. Raises `UsageError` if it cannot be read."""
    with storage.open_read(uri) as file:
        try:
            for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS):
                for row in batch.to_pylist():
                    yield {name: _json_value(value) for name, value in row.items()}
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{uri} cannot be read as Parquet: {explained(error)}") from error


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return json.loads(json.dumps(value, default=_text))


def _text(value: Any) -> str:
    """Of what json cannot hold: bytes as UTF-8, times and decimals as they are written."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
