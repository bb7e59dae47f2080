"""Parquet files that a shard writes: rows in batches, row groups of bounded size, the same bytes for the same rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.ledger.seal import HashedFile

COUNTS_KEY = "vqbeam.shard"
PROVENANCE_KEY = "vqbeam"
ROW_GROUP_ROWS = 4096
ROW_GROUP_BYTES = 32 << 20
LETTERS_HELD = 4 << 20  # of rejected rows in memory: keys may be of any length
ERROR_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("key", "uri", "stage", "error", "message")],
    metadata={PROVENANCE_KEY: '{"rows": "rejected"}'},
)


class TableWriter:
    """Writes batches of one schema to a local Parquet file, in row groups of whole batches: some `group_rows`
    rows, fewer if rows are big. The same batches give the same bytes. A `dictionary` of values takes time that small
    row groups do not repay."""

    def __init__(
        self, path: Path, schema: pa.Schema, group_rows: int = ROW_GROUP_ROWS, *, dictionary: bool = True
    ) -> None:
        self.path = path
        self._group_rows = group_rows
        self._schema = schema
        self._file = open(path, "wb")  # noqa: SIM115 - closed by close or abort
        self.hashed = HashedFile(self._file)
        self._writer = pq.ParquetWriter(
            self.hashed, schema, compression="zstd", use_dictionary=dictionary, write_page_index=True
        )
        self._pending: list[pa.Table] = []
        self._rows = 0  # pending, and their bytes
        self._bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; types are cast to the schema. Raises `pa.ArrowInvalid` if a value does not fit."""
        table = pa.Table.from_batches([batch]).cast(self._schema)
        self._pending.append(table)
        self._rows += table.num_rows
        self._bytes += table.nbytes
        if self._rows >= self._group_rows or self._bytes >= ROW_GROUP_BYTES:
            self._flush()

    def close(self, metadata: Callable[[HashedFile], Mapping[str, str]] | None = None) -> None:
        """Write the pending rows, the footer and the `metadata` of what is written by then, and make them durable."""
        if self._pending:
            self._flush()
        if metadata:
            self._writer.add_key_value_metadata(dict(metadata(self.hashed)))
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abort(self) -> None:
        self._pending = []
        with suppress(OSError):  # a full disk takes no footer either
            self._writer.close()
        with suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)

    def _flush(self) -> None:
        self._writer.write_table(pa.concat_tables(self._pending).combine_chunks(), row_group_size=self._rows)
        self._pending, self._rows, self._bytes = [], 0, 0


class ErrorLog:
    """The rejected rows of a shard, spooled to a local file; `close` returns its path, or None if there are none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: TableWriter | None = None
        self._rows: list[dict[str, str]] = []
        self._letters = 0

    def add(self, key: str, uri: str, stage: str, error: str, message: str) -> None:
        self._rows.append({"key": key, "uri": uri, "stage": stage, "error": error, "message": message})
        self._letters += len(key) + len(uri) + len(message)
        if len(self._rows) >= ROW_GROUP_ROWS or self._letters >= LETTERS_HELD:
            self._spool()

    def close(self) -> Path | None:
        if self._rows:
            self._spool()
        if self._writer is None:
            return None
        self._writer.close()
        return self._path

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()

    def _spool(self) -> None:
        if self._writer is None:
            self._writer = TableWriter(self._path, ERROR_SCHEMA)
        self._writer.write(pa.RecordBatch.from_pylist(self._rows, ERROR_SCHEMA))
        self._rows, self._letters = [], 0
