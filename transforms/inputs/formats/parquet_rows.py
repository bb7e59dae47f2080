"""The rows of a Parquet file: row ranges, read page by page as batches of the schema of the job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from itertools import islice
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from transforms import storage
from transforms.batch import PASS_PREFIX
from transforms.errors import brief
from transforms.inputs import cells
from transforms.inputs.column_types import (
    holds_codes,
    holds_number,
    is_binary,
    is_image_or_path,
    is_image_struct,
    is_list,
    is_number,
    is_string,
    plain,
)
from transforms.inputs.formats.large_pages import LARGE, LargeColumn, Unsupported
from transforms.inputs.formats.parquet_faults import explained
from transforms.inputs.hive import values_of
from transforms.inputs.provenance import image_root, unchanged
from transforms.inputs.request import InputSchema
from transforms.inputs.rows import MAX_BATCH_BYTES, MAX_BATCH_ROWS, OBJECT_BYTES, Row, batch_schema, batches
from transforms.inputs.uris import relative_to, stem
from transforms.inputs.values import UNFIT_NUMBER, is_blank, key_of, note, shown
from transforms.ledger.types import Slice, Source

PAGE_BUFFER = 1 << 20  # with pre_buffer off, reading costs pages in memory, not row groups


def read(
    slices: Iterable[Slice], schema: InputSchema, max_bytes: int, notices: Counter[str]
) -> Iterator[pa.RecordBatch]:
    for part in slices:
        with unchanged(part.source, notices):
            yield from _read_slice(part, schema, notices)


def _read_slice(part: Slice, schema: InputSchema, notices: Counter[str]) -> Iterator[pa.RecordBatch]:
    """Batches of a row range. A file that is no Parquet gives one rejected row; a page that cannot be read
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
                message = f"the file cannot be read from row {row} on: {explained(error)}"
                yield from batches(reader.lost(row, stop, message), schema)
                return
            yield reader.batch(batch, row)
            row += batch.num_rows


class _Reader:
    """Reads one open file, with its own columns, as batches of the schema of the job."""

    def __init__(self, source: Source, schema: InputSchema, parquet: pq.ParquetFile, notices: Counter[str]) -> None:
        self.source = source
        self.schema = schema
        self.parquet = parquet
        self.notices = notices
        self.folders = values_of(source, schema)
        self.types = {field.name: field.type for field in parquet.schema_arrow if field.name not in self.folders}
        self.in_file = frozenset(self.types)
        self.types |= {name: pa.array([value]).type for name, value in self.folders.items()}
        self.arrow = batch_schema(schema)
        self.prefix = stem(relative_to(source.uri, source.root))
        self.images_from = image_root(source, parquet.schema_arrow, schema.image)
        self.mismatch = self._mismatch()
        if not schema.chosen:
            for name in self.in_file - schema.known:
                notices[f"column {brief(name)}, which the first file has not, was left out"] += 1

    def _mismatch(self) -> str | None:
        """The reason why no row of this file fits the schema; None if they do."""
        schema = self.schema
        names = self.parquet.schema_arrow.names
        twice = sorted(name for name in schema.known if names.count(name) > 1)
        if twice:
            return f"the file has several columns called {', '.join(twice)}"
        missing = sorted(name for name in schema.known if name not in self.types)
        if missing:
            return f"the file has no column {', '.join(missing)}"
        for name, field in zip(schema.origins, schema.passthrough, strict=True):
            if name in self.folders and pt.is_string(self.types[name]) and not pt.is_string(field.type):
                return f"{name} is {shown(self.folders[name])}, the plan fixed its type as {field.type}"
            floats = schema.reading > 1 and cells.may_be_whole(self.types[name], field.type)
            if not floats and not cells.castable(self.types[name], field.type):
                return f"column {name} is {self.types[name]}, the plan fixed its type as {field.type}"
        if schema.caption is not None:
            kind = plain(self.types[schema.caption])
            single = schema.caption_is_list and (is_string(kind) or is_binary(kind))
            numbers = schema.kind != "prompts" and is_number(kind)
            if not single and not numbers and not cells.castable(kind, schema.caption_type):
                return f"column {schema.caption} is {kind}, the plan fixed its type as {schema.caption_type}"
        for part, fits, wanted in ((schema.image, is_image_or_path, "images"), (schema.codes, holds_codes, "codes")):
            if part is not None and not pt.is_null(self.types[part]) and not fits(plain(self.types[part])):
                return f"column {part} is {self.types[part]}, which holds no {wanted}"
        for name in schema.options:
            if not holds_number(plain(self.types[name])):
                return f"column {name} is {self.types[name]}, which holds no numbers"
        return None

    def default_key(self, row: int) -> str:
        """The key of a row that has none."""
        return f"{self.prefix}-{row:09d}"

    def lost(self, start: int, stop: int, message: str) -> Iterator[Row]:
        """Rejected rows that stand for rows [start, stop)."""
        for row in range(start, stop):
            yield Row(self.default_key(row), f"{self.source.uri}#{row}", error=("broken_archive", message))

    def raw(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Rows [start, stop) as the file has them; only the row groups that hold some of them are opened."""
        names = sorted(self.schema.known & self.in_file)
        first = 0
        for group in range(self.parquet.num_row_groups):
            rows = self.parquet.metadata.row_group(group).num_rows
            low, high = max(start - first, 0), min(stop - first, rows)
            if low < high:
                size = self._batch_rows(group, names)
                if self._bytes_of(group) >= LARGE:
                    for batch in self._large_rows(group, low, high, names, size):
                        yield batch
                        low += batch.num_rows
                yield from self._rows_of(group, low, high, names, size)
            first += rows

    def _rows_of(self, group: int, low: int, high: int, names: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """Rows [low, high) of a row group."""
        seen = 0
        if low >= high:
            return
        for batch in self.parquet.iter_batches(size, row_groups=[group], columns=names, use_threads=False):
            begin, end = max(low - seen, 0), min(high - seen, batch.num_rows)
            if begin < end:
                yield batch.slice(begin, end - begin)
            seen += batch.num_rows
            if seen >= high:
                break

    def _bytes_of(self, group: int) -> int:
        """The size of the largest column of a row group."""
        metadata = self.parquet.metadata.row_group(group)
        return max(metadata.column(index).total_uncompressed_size for index in range(metadata.num_columns))

    def _large_rows(self, group: int, low: int, high: int, names: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """The first of the rows [low, high) of a row group: all, none, or those before one that only Arrow may read."""
        with ExitStack() as opened:
            file = opened.enter_context(storage.open_read(self.source.uri, PAGE_BUFFER))
            large = self._large_columns(group, names, file)
            for column in large.values():
                opened.callback(column.close)
            if large:
                with suppress(Unsupported):
                    yield from self._with_large(group, low, high, names, size, large)

    def _large_columns(self, group: int, names: list[str], file: IO[bytes]) -> dict[str, LargeColumn]:
        """The columns of bytes in large pages, by their paths."""
        metadata, schema = self.parquet.metadata.row_group(group), self.parquet.schema
        found: dict[str, LargeColumn] = {}
        for index in range(metadata.num_columns):
            about, column = metadata.column(index), schema.column(index)
            name, _, rest = about.path_in_schema.partition(".")
            kind = plain(self.types.get(name, pa.null()))
            fits = is_binary(kind) if not rest else is_image_struct(kind) and rest == "bytes"
            if not fits or name not in names or column.max_repetition_level or about.physical_type != "BYTE_ARRAY":
                continue
            large = LargeColumn.find(file, about, column.max_definition_level)
            if large is not None:
                found[about.path_in_schema] = large
        return found

    def _with_large(
        self, group: int, low: int, high: int, names: list[str], size: int, large: dict[str, LargeColumn]
    ) -> Iterator[pa.RecordBatch]:
        """Rows [low, high) of a row group, of which some columns are read value by value."""
        structs = [path.partition(".")[0] for path in large if "." in path]
        others = [name for name in names if name not in large and name not in structs]
        fields = [
            f"{name}.{field.name}" for name in structs for field in plain(self.types[name]) if field.name != "bytes"
        ]
        columns = {path: column.values(low, high) for path, column in large.items()}
        if others or fields:
            rest = self._rows_of(group, low, high, [*others, *fields], size)
        else:
            counts = [min(size, high - row) for row in range(low, high, size)]
            rest = (pa.RecordBatch.from_struct_array(pa.array([{}] * count, pa.struct([]))) for count in counts)
        for batch in rest:
            arrays = {name: batch.column(name) for name in others}
            for path, values in columns.items():
                name, _, inner = path.partition(".")
                data = pa.array(islice(values, batch.num_rows), pa.large_binary())
                if len(data) != batch.num_rows:
                    raise Unsupported
                if inner:
                    kept = batch.column(name) if name in batch.schema.names else None
                    inside = [] if kept is None else [field.name for field in kept.type]
                    children = dict(zip(inside, [] if kept is None else kept.flatten(), strict=True))
                    data = pa.StructArray.from_arrays([*children.values(), data], [*children, inner])
                arrays[name] = data
            yield pa.RecordBatch.from_pydict({name: arrays[name] for name in names})

    def _batch_rows(self, group: int, names: list[str]) -> int:
        metadata = self.parquet.metadata.row_group(group)
        size = 0
        for index in range(metadata.num_columns):
            column = metadata.column(index)
            if column.path_in_schema.partition(".")[0] in names:
                values = (
                    column.num_values - metadata.num_rows
                )  # more than one a row, in lists, may be packed to nothing
                size += max(column.total_uncompressed_size, OBJECT_BYTES * values)
        per_row = max(1, size // max(1, metadata.num_rows))
        return max(1, min(MAX_BATCH_ROWS, MAX_BATCH_BYTES // per_row))

    def batch(self, batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
        """A raw batch, whose first row is row `first` of the file, as a batch of the job."""
        schema, rows = self.schema, batch.num_rows
        for name, value in self.folders.items():
            batch = batch.append_column(name, pa.array([value] * rows, self.types[name]))
        batch, no_text = cells.without_bad_text(batch)
        errors: list[tuple[str, str] | None] = [
            ("broken_record", f"{no_text[row]} is not UTF-8") if row in no_text else None for row in range(rows)
        ]
        columns: dict[str, pa.Array] = {
            "key": self._keys(batch, first, errors),
            "uri": pa.array([f"{self.source.uri}#{first + row}" for row in range(rows)], pa.string()),
        }
        if self.mismatch is not None:
            errors = [("schema_mismatch", self.mismatch)] * rows
        else:
            columns |= self._cast_columns(batch, errors)
            if schema.image is not None:
                columns |= cells.image_cells(batch.column(schema.image), schema, self.images_from, errors)
            elif schema.codes is not None:
                columns |= cells.code_cells(batch.column(schema.codes), schema.codes, errors)
            else:
                columns |= cells.option_cells(batch, schema.options, errors)
                columns |= cells.prompt_cells(columns["caption"], columns["key"], schema, errors)
        if schema.status is not None and schema.status in self.types:
            status = batch.column(schema.status).to_pylist()
            reasons = [None if value == "success" else "status" for value in status]
            columns["filtered"] = pa.array(reasons, pa.string())
            errors = [None if reason else error for reason, error in zip(reasons, errors, strict=True)]
        columns["error_code"] = pa.array([error[0] if error else None for error in errors], pa.string())
        columns["error_message"] = pa.array([error[1] if error else None for error in errors], pa.string())
        arrays = [columns.get(field.name, pa.nulls(rows, field.type)) for field in self.arrow]
        return pa.RecordBatch.from_arrays(arrays, schema=self.arrow)

    def _keys(self, batch: pa.RecordBatch, first: int, errors: list[tuple[str, str] | None]) -> pa.Array:
        defaults = [self.default_key(first + row) for row in range(batch.num_rows)]
        name = self.schema.key
        if name is None or name not in self.types:
            return pa.array(defaults, pa.string())
        keys: list[str] = []
        for row, (value, default) in enumerate(zip(batch.column(name).to_pylist(), defaults, strict=True)):
            try:
                value = value.decode() if isinstance(value, bytes) else value
            except UnicodeDecodeError:
                errors[row] = errors[row] or ("broken_record", f"the key {shown(value)} is not UTF-8")
                value = None
            keys.append(key_of(value) or default)
        return pa.array(keys, pa.string())

    def _cast_columns(self, batch: pa.RecordBatch, errors: list[tuple[str, str] | None]) -> dict[str, pa.Array]:
        """The caption and the columns that pass through; a value that does not fit marks its row in `errors`."""
        columns: dict[str, pa.Array] = {}
        if self.schema.caption is not None:
            columns["caption"] = self._captions(batch.column(self.schema.caption), errors)
        for name, field in zip(self.schema.origins, self.schema.passthrough, strict=True):
            columns[PASS_PREFIX + field.name], misfits = cells.cast(batch.column(name), field.type)
            floats = self.schema.reading > 1 and cells.may_be_whole(batch.column(name).type, field.type)
            if floats and misfits:
                note(self.notices, UNFIT_NUMBER.format(name=shown(name), type=field.type), count=len(misfits))
                continue
            for row in misfits:
                value = batch.column(name)[row].as_py()
                errors[row] = ("schema_mismatch", f"{name} is {shown(value)}, the plan fixed its type as {field.type}")
        return columns

    def _captions(self, column: pa.Array, errors: list[tuple[str, str] | None]) -> pa.Array:
        kind, column = self.schema.caption_type, cells.decoded(column)
        if is_number(column.type):
            return cells.numbered_captions(column, self.schema, errors)
        single = self.schema.caption_is_list and not is_list(column.type) and not pt.is_null(column.type)
        captions, misfits = cells.cast(column, pa.string() if single else kind)
        for row in misfits:
            errors[row] = errors[row] or ("broken_record", f"{self.schema.caption} is not UTF-8")
        if self.schema.kind == "prompts":
            return cells.null_where(pc.equal(captions, ""), captions)
        if single:
            return pa.array([None if is_blank(text) else [text] for text in captions.to_pylist()], kind)
        blank = pa.array(map(is_blank, captions.to_pylist()), pa.bool_())
        return cells.null_where(blank, captions) if pc.any(blank).as_py() else captions
