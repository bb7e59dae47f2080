"""Parquet inputs: footers for planning, and row ranges read page by page as canonical batches."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from transforms import storage
from transforms.batch import IMAGE_PATH, PASS_PREFIX
from transforms.errors import RowRejected, amount
from transforms.inputs.casting import cast, castable, without_bad_text
from transforms.inputs.columns import (
    holds_codes,
    holds_image,
    holds_number,
    is_binary,
    is_image_struct,
    is_list,
    is_string,
    plain,
)
from transforms.inputs.formats.prompts import prompt_key, too_long
from transforms.inputs.options import arrow_type, option_value
from transforms.inputs.request import InputSchema
from transforms.inputs.rows import MAX_BATCH_BYTES, MAX_BATCH_ROWS, Row, batch_schema, batches
from transforms.inputs.uris import folder_of, relative_to, resolve, stem
from transforms.inputs.values import shown
from transforms.ledger.tables import PROVENANCE_KEY
from transforms.ledger.types import Slice, Source

PAGE_BUFFER = 1 << 20  # with pre_buffer off, reading costs pages in memory, not row groups


@dataclass(frozen=True)
class Footer:
    """`groups` are the rows of each row group; `data_bytes` the compressed size of the columns."""

    columns: pa.Schema
    groups: tuple[int, ...]
    data_bytes: int

    @property
    def rows(self) -> int:
        return sum(self.groups)


def read_footer(uri: str) -> Footer:
    """Raises `pa.ArrowInvalid` where the file is no (whole) Parquet, `ShardFailed`, `FileNotFoundError`."""
    with storage.open_read(uri, buffer_size=PAGE_BUFFER) as file:
        parquet = pq.ParquetFile(file)
        groups = [parquet.metadata.row_group(index) for index in range(parquet.num_row_groups)]
        size = sum(group.column(index).total_compressed_size for group in groups for index in range(group.num_columns))
        return Footer(parquet.schema_arrow, tuple(group.num_rows for group in groups), size)


def cuts(groups: tuple[int, ...], rows_per_shard: int) -> list[tuple[int, int]]:
    """Row ranges of at most `rows_per_shard`: whole row groups together, and groups larger than that cut inside."""
    ranges: list[tuple[int, int]] = []
    start = end = 0
    for rows in groups:
        if end > start and end + rows - start > rows_per_shard:
            ranges.append((start, end))
            start = end
        end += rows
        while end - start > rows_per_shard:
            pieces = math.ceil((end - start) / rows_per_shard)
            middle = start + math.ceil((end - start) / pieces)
            ranges.append((start, middle))
            start = middle
    if end > start:
        ranges.append((start, end))
    return ranges


def read(part: Slice, schema: InputSchema, notices: Counter[str]) -> Iterator[pa.RecordBatch]:
    """Canonical batches of a row range. A file that is no Parquet gives one rejected row; a page that cannot be read
    rejects the rows from there to the end of the range."""
    uri = part.source.uri
    with storage.open_read(uri, buffer_size=PAGE_BUFFER) as file:
        try:
            parquet = pq.ParquetFile(file, buffer_size=PAGE_BUFFER, pre_buffer=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            key = stem(relative_to(uri, part.source.root))
            yield from batches([Row(key, uri, error=("broken_archive", f"no readable Parquet: {error}"))], schema)
            return
        stop = parquet.metadata.num_rows if part.stop is None else part.stop
        reader = _Reader(part.source, schema, parquet, notices)
        row = part.start
        raw = reader.raw(part.start, stop)
        while row < stop:
            try:
                batch = next(raw)
            except MemoryError:
                raise
            except (pa.ArrowException, OSError) as error:  # failures of the store are `StorageFailed`, no OSError
                message = f"the file cannot be read from row {row} on: {error}"
                yield from batches(reader.lost(row, stop, message), schema)
                return
            yield reader.canonical(batch, row)
            row += batch.num_rows


class _Reader:
    """Reads one open file: its own columns on the one side, the schema of the job on the other."""

    def __init__(self, source: Source, schema: InputSchema, parquet: pq.ParquetFile, notices: Counter[str]) -> None:
        self.source = source
        self.schema = schema
        self.parquet = parquet
        self.types = {field.name: field.type for field in parquet.schema_arrow}
        self.arrow = batch_schema(schema)
        self.prefix = stem(relative_to(source.uri, source.root))
        self.pictures = picture_place(source, parquet.schema_arrow, schema.image)
        self.mismatch = self._mismatch()
        if not schema.chosen:
            for name in self.types.keys() - schema.known:
                notices[f"column {name}, which the first file has not, was left out"] += 1

    def _mismatch(self) -> str | None:
        """What keeps every row of this file from fitting the schema; None where it fits."""
        schema = self.schema
        names = self.parquet.schema_arrow.names
        twice = sorted(name for name in schema.known if names.count(name) > 1)
        if twice:
            return f"the file has several columns called {', '.join(twice)}"
        missing = sorted(name for name in schema.known if name not in self.types)
        if missing:
            return f"the file has no column {', '.join(missing)}"
        for name, field in zip(schema.origins, schema.passthrough, strict=True):
            if not castable(self.types[name], field.type):
                return f"column {name} is {self.types[name]}, the plan fixed its type as {field.type}"
        if schema.caption is not None:
            kind = plain(self.types[schema.caption])
            if not castable(kind, schema.caption_type) and not (schema.caption_is_list and is_string(kind)):
                return f"column {schema.caption} is {kind}, the plan fixed its type as {schema.caption_type}"
        for part, fits, wanted in ((schema.image, _is_image, "images"), (schema.codes, holds_codes, "codes")):
            if part is not None and not pt.is_null(self.types[part]) and not fits(plain(self.types[part])):
                return f"column {part} is {self.types[part]}, which holds no {wanted}"
        for name in schema.options:
            if not holds_number(plain(self.types[name])):
                return f"column {name} is {self.types[name]}, which holds no numbers"
        return None

    def place(self, row: int) -> str:
        """The key of a row that has none of its own."""
        return f"{self.prefix}-{row:09d}"

    def lost(self, start: int, stop: int, message: str) -> Iterator[Row]:
        """Rejected rows in the place of rows [start, stop)."""
        for row in range(start, stop):
            yield Row(self.place(row), f"{self.source.uri}#{row}", error=("broken_archive", message))

    def raw(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Rows [start, stop) as the file has them; only the row groups that hold some of them are opened."""
        names = sorted(self.schema.known & self.types.keys())
        first = 0
        for group in range(self.parquet.num_row_groups):
            rows = self.parquet.metadata.row_group(group).num_rows
            low, high = max(start - first, 0), min(stop - first, rows)
            if low < high:
                size = self._batch_rows(group, names)
                seen = 0
                for batch in self.parquet.iter_batches(size, row_groups=[group], columns=names, use_threads=False):
                    begin, end = max(low - seen, 0), min(high - seen, batch.num_rows)
                    if begin < end:
                        yield batch.slice(begin, end - begin)
                    seen += batch.num_rows
                    if seen >= high:
                        break
            first += rows

    def _batch_rows(self, group: int, names: list[str]) -> int:
        metadata = self.parquet.metadata.row_group(group)
        size = 0
        for index in range(metadata.num_columns):
            column = metadata.column(index)
            if column.path_in_schema.partition(".")[0] in names:
                size += column.total_uncompressed_size
        per_row = max(1, size // max(1, metadata.num_rows))
        return max(1, min(MAX_BATCH_ROWS, MAX_BATCH_BYTES // per_row))

    def canonical(self, batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
        """A raw batch whose first row is row `first` of the file, in the canonical form."""
        rows = batch.num_rows
        batch, no_text = without_bad_text(batch)
        errors: list[tuple[str, str] | None] = [
            ("broken_record", f"{no_text[row]} is not UTF-8") if row in no_text else None for row in range(rows)
        ]
        columns: dict[str, pa.Array] = {
            "key": self._keys(batch, first),
            "uri": pa.array([f"{self.source.uri}#{first + row}" for row in range(rows)], pa.string()),
        }
        if self.mismatch is not None:
            errors = [("schema_mismatch", self.mismatch)] * rows
        else:
            columns |= self._cast_columns(batch, errors)
            if self.schema.kind == "images":
                columns |= self._images(batch, errors)
            elif self.schema.kind == "codes":
                columns |= self._codes(batch, errors)
            else:
                columns |= self._options(batch, errors)
                columns |= self._prompts(columns, errors)
        columns["filtered"] = self._filtered(batch)
        for row, reason in enumerate(columns["filtered"].to_pylist()):
            errors[row] = None if reason else errors[row]  # a row is left out for one reason
        columns["error_code"] = pa.array([error[0] if error else None for error in errors], pa.string())
        columns["error_message"] = pa.array([error[1] if error else None for error in errors], pa.string())
        arrays = [columns.get(field.name, pa.nulls(rows, field.type)) for field in self.arrow]
        return pa.RecordBatch.from_arrays(arrays, schema=self.arrow)

    def _keys(self, batch: pa.RecordBatch, first: int) -> pa.Array:
        places = [self.place(first + row) for row in range(batch.num_rows)]
        name = self.schema.key
        if name is None or name not in self.types:
            return pa.array(places, pa.string())
        own = batch.column(name).to_pylist()
        return pa.array([str(key) if key not in (None, "") else place for key, place in zip(own, places, strict=True)])

    def _cast_columns(self, batch: pa.RecordBatch, errors: list[tuple[str, str] | None]) -> dict[str, pa.Array]:
        """The caption and the columns that pass through; a value that does not fit marks its row in `errors`."""
        columns: dict[str, pa.Array] = {}
        if self.schema.caption is not None:
            columns["caption"] = self._captions(batch.column(self.schema.caption))
        for name, field in zip(self.schema.origins, self.schema.passthrough, strict=True):
            columns[PASS_PREFIX + field.name], misfits = cast(batch.column(name), field.type)
            for row in misfits:
                value = batch.column(name)[row].as_py()
                errors[row] = ("schema_mismatch", f"{name} is {shown(value)}, the plan fixed its type as {field.type}")
        return columns

    def _captions(self, column: pa.Array) -> pa.Array:
        if self.schema.caption_is_list and is_string(plain(column.type)):
            return pa.array([None if text is None else [text] for text in column.to_pylist()], self.schema.caption_type)
        captions = cast(column, self.schema.caption_type)[0]
        if self.schema.caption_is_list:
            return captions
        return pc.if_else(pc.equal(captions, ""), pa.scalar(None, pa.string()), captions)

    def _filtered(self, batch: pa.RecordBatch) -> pa.Array:
        name = self.schema.status
        if name is None or name not in self.types:
            return pa.nulls(batch.num_rows, pa.string())
        status = batch.column(name).to_pylist()
        return pa.array([None if value == "success" else "status" for value in status], pa.string())

    def _images(self, batch: pa.RecordBatch, errors: list[tuple[str, str] | None]) -> dict[str, pa.Array]:
        column = batch.column(self.schema.image)
        if pt.is_dictionary(column.type):
            column = column.dictionary_decode()
        references: list[str | None] = [None] * len(column)
        image = pa.nulls(len(column), pa.large_binary())
        if is_image_struct(column.type):
            image = column.flatten()[column.type.get_field_index("bytes")].cast(pa.large_binary())
            path = column.type.get_field_index("path")
            if path >= 0:
                references = column.flatten()[path].to_pylist()
        elif is_binary(column.type):
            image = column.cast(pa.large_binary())
        elif is_string(column.type):
            references = column.to_pylist()
        present = image.is_valid().to_pylist()
        uris: list[str | None] = [None] * len(column)
        for row, reference in enumerate(references):
            if present[row] or errors[row]:
                continue
            try:
                uris[row] = resolve_cell(reference, self.pictures, self.schema)
            except RowRejected as rejected:
                errors[row] = (rejected.code, rejected.message)
        return {"image": image, "image_uri": pa.array(uris, pa.string())}

    def _codes(self, batch: pa.RecordBatch, errors: list[tuple[str, str] | None]) -> dict[str, pa.Array]:
        column = batch.column(self.schema.codes)
        kind = pa.list_(pa.int64())
        if is_list(column.type):
            codes, misfits = cast(column, kind)
            for row in misfits:
                errors[row] = ("code_out_of_range", "a code does not fit 64 bits")
        elif is_binary(column.type):
            codes = pa.array([_from_int16(value, row, errors) for row, value in enumerate(column.to_pylist())], kind)
        else:
            codes = pa.nulls(len(column), kind)
        if codes.null_count or codes.values.null_count:
            for row, cell in enumerate(codes.to_pylist()):
                if (cell is None or None in cell) and errors[row] is None:
                    what = "the cell" if cell is None else "a code in the cell"
                    errors[row] = ("missing_codes", f"{what} of {self.schema.codes} is null")
        return {"codes": codes}

    def _options(self, batch: pa.RecordBatch, errors: list[tuple[str, str] | None]) -> dict[str, pa.Array]:
        """Seed, number of images and so on; one that cannot be used is null, and marks its row in `errors`."""
        columns: dict[str, pa.Array] = {}
        for name in self.schema.options:
            values: list[int | float | None] = []
            for row, value in enumerate(batch.column(name).to_pylist()):
                try:
                    values.append(option_value(name, value))
                except RowRejected as rejected:
                    values.append(None)
                    errors[row] = errors[row] or (rejected.code, rejected.message)
            columns[name.lower()] = pa.array(values, arrow_type(name.lower()))
        return columns

    def _prompts(self, columns: dict[str, pa.Array], errors: list[tuple[str, str] | None]) -> dict[str, pa.Array]:
        """The prompts that are not too long, and their keys where the key is made from the prompt."""
        prompts, keys = columns["caption"].to_pylist(), columns["key"].to_pylist()
        for row, prompt in enumerate(prompts):
            if prompt is None:
                continue
            errors[row] = errors[row] or too_long(len(prompt.encode()))
            if self.schema.key_from == "prompt":
                keys[row] = prompt_key(prompt)
            prompts[row] = None if errors[row] else prompt
        return {"caption": pa.array(prompts, pa.string()), "key": pa.array(keys, pa.string())}


def _is_image(kind: pa.DataType) -> bool:
    return holds_image(kind) or is_string(kind)


def _from_int16(value: bytes | None, row: int, errors: list[tuple[str, str] | None]) -> list[int] | None:
    """LAION's form: the bytes of little-endian 16-bit integers."""
    if value is None:
        return None
    if len(value) % 2:
        errors[row] = ("wrong_code_count", f"{amount(len(value), 'bytes')}: no whole number of 16-bit codes")
        return None
    codes: list[int] = np.frombuffer(value, dtype="<i2").astype(np.int64).tolist()
    return codes


def picture_place(source: Source, columns: pa.Schema, image: str | None) -> Source:
    """The table as it would have to lie for the paths in its column `image` to count from its folder.

    That is where it lies, but for pictures that vqbeam wrote: their paths count from its output folder, the tables are
    in `data/` there.
    """
    stored = (columns.metadata or {}).get(PROVENANCE_KEY.encode())
    if image != IMAGE_PATH or not stored or json.loads(stored).get("image_layout") != "files":
        return source
    output = folder_of(folder_of(source.uri))
    name = source.uri.rpartition("/")[2]
    return replace(source, uri=f"{output}/{name}", root=min(source.root, output, key=len))


def resolve_cell(reference: str | None, source: Source, schema: InputSchema) -> str:
    """The absolute URI of an image that a cell of a table names. Raises `RowRejected`."""
    if reference is None or not reference.strip():
        raise RowRejected("missing_image", f"the cell of {schema.image} is null")
    return resolve(reference, source.uri, source.root, schema.uri_schemes)
