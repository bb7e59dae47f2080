"""Where the rows of a shard end up before they are committed: a table of tokens, a table with pictures, or a tar."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from transforms import storage
from transforms.batch import ENCODING, IMAGE_PATH, IMAGE_STRUCT, PASS_PREFIX, PIXELS, ROW, SAMPLE, to_images, to_rows
from transforms.ledger.commit import TAR_COUNTS_MEMBER
from transforms.ledger.folder import Layout
from transforms.ledger.reports import ShardCounts, StoredObject, pack_codes
from transforms.ledger.tables import COUNTS_KEY, TableWriter
from transforms.outputs.pictures import encode_picture, picture_name

Columns = list[tuple[str, pa.DataType]]
Chunks = Callable[[pa.RecordBatch], list[Mapping[str, str]]]  # text chunks for the picture of each row
IMAGE_LAYOUTS = ("files", "webdataset", "parquet")


@dataclass(frozen=True)
class PictureOptions:
    """`image_format` png, webp or jpeg; `image_layout` one of `IMAGE_LAYOUTS`."""

    image_format: str = "png"
    image_layout: str = "files"


@dataclass(frozen=True)
class SinkPlace:
    """What the runner gives the sink of one shard: the local file to write, its schema, and where pictures go."""

    path: Path
    schema: pa.Schema
    compress_pool: Executor
    upload_pool: Executor
    layout: Layout
    shard: str


class Sink(Protocol):
    """Takes the batches of one shard in order. `finish` completes the local file that decides, with the counts in it;
    `pictures` are the objects stored beside it by then."""

    path: Path
    pictures: list[StoredObject]

    def write(self, batch: pa.RecordBatch) -> None: ...

    def finish(self, counts: ShardCounts) -> None: ...

    def abort(self) -> None: ...


class TableSink:
    """A table of what is in the columns already."""

    def __init__(self, place: SinkPlace) -> None:
        self.path = place.path
        self.pictures: list[StoredObject] = []
        self._schema = place.schema
        self._table = TableWriter(place.path, place.schema)

    def write(self, batch: pa.RecordBatch) -> None:
        self._table.write(output_rows(batch, self._schema))

    def finish(self, counts: ShardCounts) -> None:
        self._table.close({COUNTS_KEY: counts.to_json()})

    def abort(self) -> None:
        self._table.abort()


class TokenSink(TableSink):
    """A table of tokens; notes which codes occur."""

    def __init__(self, place: SinkPlace, codebook_size: int) -> None:
        super().__init__(place)
        self._used = np.zeros(codebook_size, bool)

    def write(self, batch: pa.RecordBatch) -> None:
        self._used[to_rows(batch.column(ENCODING)).reshape(-1)] = True
        super().write(batch)

    def finish(self, counts: ShardCounts) -> None:
        counts.codes_used = pack_codes(self._used)
        super().finish(counts)


class _Pictures:
    """Compresses the `pixels` of a batch in the pool and names the pictures."""

    def __init__(self, options: PictureOptions, pool: Executor, chunks: Chunks | None) -> None:
        self._options = options
        self._pool = pool
        self._chunks = chunks

    def of(self, batch: pa.RecordBatch) -> list[tuple[str, bytes]]:
        pixels = to_images(batch.column(PIXELS))
        suffix = self._options.image_format
        rows, keys = batch.column(ROW).to_pylist(), batch.column("key").to_pylist()
        samples = batch.column(SAMPLE).to_pylist() if SAMPLE in batch.schema.names else [0] * len(rows)
        names = [picture_name(row, key, number, suffix) for row, key, number in zip(rows, keys, samples, strict=True)]
        texts = self._chunks(batch) if self._chunks is not None else [{}] * len(rows)
        files = self._pool.map(lambda image, text: encode_picture(image, suffix, text), pixels, texts)
        return list(zip(names, files, strict=True))


class PictureTableSink(TableSink):
    """Pictures inside the table, as the `{bytes, path}` struct of Hugging Face datasets."""

    def __init__(self, place: SinkPlace, options: PictureOptions, chunks: Chunks | None) -> None:
        super().__init__(place)
        self._compress = _Pictures(options, place.compress_pool, chunks)

    def write(self, batch: pa.RecordBatch) -> None:
        cells = [{"bytes": data, "path": name} for name, data in self._compress.of(batch)]
        super().write(batch.append_column("image", pa.array(cells, IMAGE_STRUCT)))


class PictureFileSink(TableSink):
    """Pictures as files of their own, put before the table that names them. A picture that another attempt has put
    already stays as it is: it is never replaced, so whichever table wins describes what is there."""

    def __init__(self, place: SinkPlace, options: PictureOptions, chunks: Chunks | None) -> None:
        super().__init__(place)
        self._compress = _Pictures(options, place.compress_pool, chunks)
        self._uploads = place.upload_pool
        self._layout = place.layout
        self._folder = place.layout.images(place.shard)

    def write(self, batch: pa.RecordBatch) -> None:
        stored = list(self._uploads.map(self._put, self._compress.of(batch)))
        self.pictures.extend(stored)
        paths = pa.array([item.path for item in stored], pa.string())
        super().write(batch.append_column(IMAGE_PATH, paths))

    def _put(self, picture: tuple[str, bytes]) -> StoredObject:
        name, data = picture
        uri = storage.join(self._folder, name)
        while not storage.put_bytes_new(data, uri):
            try:
                data = storage.read_bytes(uri)
                break
            except FileNotFoundError:  # swept away meanwhile by an attempt that has won
                continue
        return StoredObject(self._layout.relative(uri), len(data), storage.digest(data))


class TarSink:
    """Pictures and their rows as JSON in a WebDataset tar; the counts are its last member."""

    def __init__(self, place: SinkPlace, options: PictureOptions, chunks: Chunks | None) -> None:
        self.path = place.path
        self.pictures: list[StoredObject] = []
        self._schema = place.schema
        self._compress = _Pictures(options, place.compress_pool, chunks)
        self._file = open(place.path, "wb")  # noqa: SIM115 - closed by finish or abort
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - likewise

    def write(self, batch: pa.RecordBatch) -> None:
        rows = output_rows(batch, self._schema).to_pylist()
        for (name, data), row in zip(self._compress.of(batch), rows, strict=True):
            stem = name.rsplit(".", 1)[0]
            self._add(name, data)
            self._add(f"{stem}.json", json.dumps(row, ensure_ascii=False, default=_plain).encode())

    def finish(self, counts: ShardCounts) -> None:
        self._add(TAR_COUNTS_MEMBER, counts.to_json().encode())
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abort(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)  # time, owner and mode stay at their fixed defaults
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))


PICTURE_SINKS: Mapping[str, Callable[[SinkPlace, PictureOptions, Chunks | None], Sink]] = {
    "files": PictureFileSink,
    "webdataset": TarSink,
    "parquet": PictureTableSink,
}


def picture_sink(place: SinkPlace, options: PictureOptions, chunks: Chunks | None = None) -> Sink:
    """The sink of a layout for batches with `pixels`, `key`, `row` and, where a row has several pictures, `sample`.

    `chunks` says what goes into the text chunks of PNGs, one mapping a row; None is nothing.
    """
    return PICTURE_SINKS[options.image_layout](place, options, chunks)


def picture_columns(options: PictureOptions) -> Columns:
    """The columns that the sink of a layout adds for the picture itself."""
    if options.image_layout == "files":
        return [(IMAGE_PATH, pa.string())]
    return [("image", IMAGE_STRUCT)] if options.image_layout == "parquet" else []


def _plain(value: object) -> str:
    """What JSON has no type for (times, decimals, bytes), as text."""
    return value.hex() if isinstance(value, bytes) else str(value)


def output_schema(columns: Columns, passthrough: pa.Schema, metadata: Mapping[str, str]) -> pa.Schema:
    """The schema of a job's tables: its own columns, then those that pass through, with the provenance."""
    own = [pa.field(name, kind) for name, kind in columns if name not in passthrough.names]
    return pa.schema([*own, *passthrough], metadata=dict(metadata))


def output_rows(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of `schema`, each from the input where it passes through, else from the step that made it."""
    present = set(batch.schema.names)
    names = [PASS_PREFIX + name if PASS_PREFIX + name in present else name for name in schema.names]
    return batch.select(names).rename_columns(schema.names)
