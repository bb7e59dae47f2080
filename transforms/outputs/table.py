"""Tables of rows as they are, tables of tokens, and the layout with images inside the table."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.batch import ENCODING, IMAGE, IMAGE_PATH, IMAGE_STRUCT, PASS_PREFIX
from transforms.errors import amount
from transforms.ledger.commit import MainObject
from transforms.ledger.seal import sealed
from transforms.ledger.tables import COUNTS_KEY, ROW_GROUP_ROWS, TableWriter
from transforms.ledger.types import ShardCounts, StoredObject, pack_codes
from transforms.outputs.image_files import Compressor
from transforms.outputs.layout import Layout, Row, SinkTarget, Texts, TokenLayout

ROWS_READ = 48  # at once, with their images


class TableSink:
    """Writes a table of rows as they are."""

    def __init__(self, target: SinkTarget, group_rows: int = ROW_GROUP_ROWS, *, dictionary: bool = True) -> None:
        self.path = target.path
        self.images: list[StoredObject] = []
        self._schema = target.schema
        self._target = target
        self._table = TableWriter(target.path, target.schema, group_rows, dictionary=dictionary)

    def write(self, batch: pa.RecordBatch) -> None:
        self._table.write(output_rows(batch, self._schema))

    def finish(self, counts: ShardCounts) -> None:
        job, shard = self._target.job, self._target.shard
        self._table.close(lambda file: {COUNTS_KEY: sealed(counts, job, shard, file, self.images)})

    def abort(self) -> None:
        self._table.abort()


class TokenSink(TableSink):
    """Writes a table of tokens, and notes which codes occur."""

    def __init__(
        self, target: SinkTarget, codebook_size: int, group_rows: int = ROW_GROUP_ROWS, *, dictionary: bool = True
    ) -> None:
        super().__init__(target, group_rows, dictionary=dictionary)
        self._used = np.zeros(codebook_size, bool)

    def write(self, batch: pa.RecordBatch) -> None:
        self._used[batch.column(ENCODING).flatten().to_numpy()] = True
        super().write(batch)

    def finish(self, counts: ShardCounts) -> None:
        counts.codes_used = pack_codes(self._used)
        super().finish(counts)


class ImageTableSink(TableSink):
    """Writes images inside the table, as the `{bytes, path}` struct of Hugging Face datasets."""

    def __init__(self, target: SinkTarget, image_format: str, texts: Texts | None) -> None:
        super().__init__(target)
        self._compress = Compressor(target.compress_pool, image_format, texts)

    def write(self, batch: pa.RecordBatch) -> None:
        cells = [{"bytes": data, "path": name} for name, data in self._compress(batch)]
        super().write(batch.append_column(IMAGE, pa.array(cells, IMAGE_STRUCT)))


def output_rows(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of `schema`, each from the input if it passes through, else from the step that made it."""
    present = set(batch.schema.names)
    names = [PASS_PREFIX + name if PASS_PREFIX + name in present else name for name in schema.names]
    return batch.select(names).rename_columns(schema.names)


def read_table(file: IO[bytes]) -> tuple[str, list[str]]:
    """The counts that a table carries, as JSON, and the paths in its column of image files. All of it is read, so that
    damage shows. Raises `ValueError` if rows are missing."""
    parquet = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
    text = (parquet.metadata.metadata or {})[COUNTS_KEY.encode()].decode()
    images: list[str] = []
    rows = 0
    for batch in parquet.iter_batches(ROWS_READ):
        rows += batch.num_rows
        if IMAGE_PATH in batch.schema.names:
            images.extend(batch.column(IMAGE_PATH).to_pylist())
    written = ShardCounts.from_json(text).rows_written
    if rows != written:
        raise ValueError(f"it has {amount(rows, 'rows')}, and says {written:,}")
    return text, images


def read_rows(uri: str, wanted: Collection[str]) -> Iterator[Row]:
    """The rows of a table, with those of the `wanted` columns that it has."""
    with storage.open_read(uri) as file:
        parquet = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
        names = [name for name in parquet.schema_arrow.names if name in wanted]
        for batch in parquet.iter_batches(batch_size=ROWS_READ, columns=names):
            yield from batch.to_pylist()


def _read_images(uri: str, output: str, columns: Collection[str]) -> Iterator[tuple[bytes, Row]]:
    for row in read_rows(uri, {*columns, IMAGE}):
        yield row[IMAGE]["bytes"], row


TABLE = MainObject("data", "parquet", read_table)
TOKEN_LAYOUT = TokenLayout(TABLE, TokenSink)
LAYOUT = Layout(TABLE, [(IMAGE, IMAGE_STRUCT)], ImageTableSink, _read_images)
