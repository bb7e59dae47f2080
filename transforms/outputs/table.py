"""Tables of rows as they are, tables of tokens, and the layout with images inside the table."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache, partial
from itertools import accumulate
from typing import IO, Any

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
from transforms.outputs.layout import Images, Layout, SinkTarget, StoredImage, Texts, TokenLayout

ROWS_READ = 48  # at once, with their images
ROWS_BEFORE = 64  # rows before a place that are read, too: the first images of the same row of the input


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


class TableRows:
    """The rows of an open table, those of the `columns` that it has, read from any place; a row group is held."""

    def __init__(self, file: IO[bytes], columns: Collection[str]) -> None:
        self._file = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
        self._names = [name for name in self._file.schema_arrow.names if name in columns]
        groups = map(self._file.metadata.row_group, range(self._file.num_row_groups))
        self._ends = list(accumulate(group.num_rows for group in groups))
        self._read = lru_cache(maxsize=1)(self._group)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def rows(self, first: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """All rows from `first` on, in batches, each with the number of its first row."""
        group = bisect_right(self._ends, first)
        while group < len(self._ends):
            table = self._read(group)
            start = self._ends[group] - table.num_rows
            for batch in table.slice(max(0, first - start)).to_batches(ROWS_READ):
                yield max(first, start), batch
                first = max(first, start) + batch.num_rows
            group += 1

    def _group(self, group: int) -> pa.Table:
        return self._file.read_row_group(group, columns=self._names)


@contextmanager
def open_images(
    uri: str, columns: Collection[str], image: str, read: Callable[[Any], tuple[str, bytes]]
) -> Iterator[Images]:
    """As `Layout.open_images`: `read` returns name and content of the file for a value in the column `image`."""
    with storage.open_read(uri) as file:
        table = TableRows(file, {*columns, image})

        def images(share: float) -> Iterator[StoredImage]:
            for number, batch in table.rows(max(0, int(share * len(table)) - ROWS_BEFORE)):
                cells = batch.column(image)
                for i, row in enumerate(batch.drop_columns([image]).to_pylist()):
                    end = (number + i + 1) / len(table)
                    yield StoredImage(number + i, end, row, partial(_file_of, cells, i, read))

        yield images


def _file_of(cells: pa.Array, i: int, read: Callable[[Any], tuple[str, bytes]]) -> tuple[str, bytes]:
    return read(cells[i].as_py())


def _open_images(uri: str, output: str, columns: Collection[str]) -> AbstractContextManager[Images]:
    return open_images(uri, columns, IMAGE, lambda cell: (cell["path"] or "", cell["bytes"]))


TABLE = MainObject("data", "parquet", read_table)
TOKEN_LAYOUT = TokenLayout(TABLE, TokenSink)
LAYOUT = Layout(TABLE, [(IMAGE, IMAGE_STRUCT)], ImageTableSink, _open_images)
