"""Text tables (csv, tsv, jsonl, txt, each also gzipped): records with the byte at which they begin, and rows from them.

Planning and reading go through the same parser, so that row numbers and offsets mean the same to both.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pyarrow as pa

from transforms import storage
from transforms.errors import RowRejected, UsageError
from transforms.inputs.formats.prompts import MAX_PROMPT_BYTES, fill_prompt
from transforms.inputs.request import InputSchema
from transforms.inputs.rows import Row, batches
from transforms.inputs.samples import MAX_TEXT_BYTES, parse_json
from transforms.inputs.uris import relative_to, resolve, stem
from transforms.inputs.values import TypeGuess, caption_of, key_of, passed
from transforms.ledger.types import Slice, Source

READ_BUFFER = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
UTF8_BOM = b"\xef\xbb\xbf"
METADATA = "metadata"  # a table that describes the images of its folder, whose rows have keys as those images have
LINE = "prompt"  # the one column of a txt: a line is a row
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
DELIMITERS = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a table: `values` by column, or what is wrong with it; `offset` is where it begins in the file."""

    offset: int
    values: Mapping[str, Any] | None
    error: tuple[str, str] | None = None


@dataclass(frozen=True)
class TableScan:
    """What one pass over a table found: `cuts` are (row, byte offset) every so many rows, the first at row 0."""

    rows: int
    cuts: tuple[tuple[int, int], ...]


def syntax_of(uri: str) -> str:
    """csv, tsv or jsonl, from the name. Raises `UsageError`."""
    name = uri.lower().removesuffix(".gz")
    for ending, syntax in ((".csv", "csv"), (".tsv", "tsv"), (".jsonl", "jsonl"), (".ndjson", "jsonl")):
        if name.endswith(ending):
            return syntax
    raise UsageError(f"{uri}: the name of a table ends in .csv, .tsv or .jsonl (also with .gz); rename it")


def is_gzipped(uri: str) -> bool:
    with storage.open_read(uri) as file:
        return bool(file.peek(2)[:2] == GZIP_MAGIC)


def scan(source: Source, syntax: str, rows_per_cut: int, guess: TypeGuess) -> TableScan:
    """Read a table once: count its rows, find where to cut it, and learn the types of its fields.

    `guess` learns from every record of a jsonl, and from the header of the others: their cells are strings.
    """
    cuts: list[tuple[int, int]] = []
    rows = 0
    if syntax == "txt":
        guess.add({LINE: ""})
    elif syntax in DELIMITERS:
        guess.add(dict.fromkeys(read_header(source, syntax), ""))
    for record in records(source, syntax):
        if rows % rows_per_cut == 0:
            cuts.append((rows, record.offset))
        rows += 1
        if record.values is not None and syntax == "jsonl":
            guess.add(record.values)
    return TableScan(rows, tuple(cuts))


def read(part: Slice, schema: InputSchema, notices: Counter[str]) -> Iterator[pa.RecordBatch]:
    """Canonical batches of rows [start, stop) of a table, from the byte where row `start` begins."""
    return batches(_rows(part, schema, notices), schema)


def _rows(part: Slice, schema: InputSchema, notices: Counter[str]) -> Iterator[Row]:
    source = part.source
    syntax = syntax_of(source.uri) if source.format == METADATA else source.format
    prefix = stem(relative_to(source.uri, source.root))
    number = part.start if part.offset else 0
    for record in records(source, syntax, part.offset):
        if part.stop is not None and number >= part.stop:
            return
        if number >= part.start:
            yield _row(record, f"{prefix}-{number:09d}", f"{source.uri}#{number}", source, schema, notices)
        number += 1


def _row(record: Record, key: str, uri: str, source: Source, schema: InputSchema, notices: Counter[str]) -> Row:
    row = Row(key, uri, error=record.error)
    if record.values is None:
        return row
    if schema.kind == "prompts":
        fill_prompt(row, record.values, schema)
    else:
        _fill_image(row, record.values, source, schema)
    if not schema.chosen:
        for name in record.values.keys() - schema.known:
            notices[f"column {name!r}, which the plan has not, was left out"] += 1
    return row


def _fill_image(row: Row, values: Mapping[str, Any], source: Source, schema: InputSchema) -> None:
    key = row.key
    try:
        if schema.key is not None:
            row.key = key_of(values.get(schema.key)) or key
        if schema.status is not None and values.get(schema.status) != "success":
            row.filtered = "status"
        caption = schema.caption_field if source.format == METADATA else schema.caption
        if caption is not None:
            row.caption = caption_of(values.get(caption), schema.caption_is_list)
        row.values = passed(values, schema.origins, schema.passthrough)
        reference = values.get(cast(str, schema.image))
        if reference is None or reference == "":
            raise RowRejected("missing_image", f"the cell of {schema.image} is null")
        if not isinstance(reference, str):
            raise RowRejected("schema_mismatch", f"{schema.image} is {reference!r}, not a path or a URI")
        row.image_uri = resolve(reference, source.uri, source.root, schema.uri_schemes)
        if source.format == METADATA and row.key == key:
            row.key = stem(relative_to(row.image_uri, source.root))
    except RowRejected as rejected:
        row.error = (rejected.code, rejected.message)


def read_header(source: Source, syntax: str) -> list[str]:
    """The column names of a csv or tsv. Raises `UsageError`."""
    with storage.open_read(source.uri) as file:
        return _header(_Lines(_unpacked(file), 0), source, DELIMITERS[syntax])


def _unpacked(file: io.BufferedReader) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == GZIP_MAGIC else file)


def records(source: Source, syntax: str, offset: int = 0) -> Iterator[Record]:
    """Every record from the byte `offset` on (0, or where a record begins), in order; broken ones in their place."""
    header = read_header(source, syntax) if syntax in DELIMITERS and offset else []
    with storage.open_read(source.uri, buffer_size=READ_BUFFER) as file:
        stream = _unpacked(file)
        stream.seek(offset)
        lines = _Lines(stream, offset)
        try:
            if syntax == "jsonl":
                yield from _json_records(lines)
            elif syntax == "txt":
                yield from _line_records(lines, source)
            else:
                header = header or _header(lines, source, DELIMITERS[syntax])
                yield from _csv_records(lines, header, DELIMITERS[syntax])
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield Record(lines.offset, None, ("broken_archive", f"the gzipped table breaks off here: {error}"))


class _Lines:
    """Lines of a table, with the byte after the last one given out. A line beyond `MAX_TEXT_BYTES` comes cut short."""

    def __init__(self, stream: BinaryIO, offset: int) -> None:
        self._stream = stream
        self.offset = offset

    def __iter__(self) -> Iterator[bytes]:
        while line := self._stream.readline(MAX_TEXT_BYTES):
            self.offset += len(line)
            if len(line) == MAX_TEXT_BYTES and not line.endswith(b"\n"):
                self._skip_rest()
            yield line.removeprefix(UTF8_BOM) if self.offset == len(line) else line

    def _skip_rest(self) -> None:
        while rest := self._stream.readline(MAX_TEXT_BYTES):
            self.offset += len(rest)
            if rest.endswith(b"\n"):
                return


def _json_records(lines: _Lines) -> Iterator[Record]:
    offset = lines.offset
    for line in lines:
        if line.strip():
            if len(line) >= MAX_TEXT_BYTES:
                yield Record(offset, None, ("broken_record", f"the line is longer than {MAX_TEXT_BYTES} bytes"))
            else:
                try:
                    yield Record(offset, parse_json(line))
                except RowRejected as rejected:
                    yield Record(offset, None, (rejected.code, rejected.message))
        offset = lines.offset


def _line_records(lines: _Lines, source: Source) -> Iterator[Record]:
    """Each line a record, blank ones too: the row of a prompt is its line in every editor. Raises `UsageError`."""
    offset = lines.offset
    for line in lines:
        if offset == 0 and line.startswith(UTF16):
            raise UsageError(f"{source.uri} is UTF-16; prompts are read as UTF-8: convert it first")
        if len(line) >= MAX_TEXT_BYTES:
            message = f"the line has at least {MAX_TEXT_BYTES} bytes, a prompt at most {MAX_PROMPT_BYTES}"
            yield Record(offset, None, ("prompt_too_long", message))
        else:
            try:
                yield Record(offset, {LINE: line.removesuffix(b"\n").removesuffix(b"\r").decode()})
            except UnicodeDecodeError as error:
                yield Record(offset, None, ("broken_record", f"the line at byte {offset} is not UTF-8: {error}"))
        offset = lines.offset


def _reader(lines: _Lines, delimiter: str) -> Any:
    csv.field_size_limit(MAX_TEXT_BYTES)
    return csv.reader(map(_csv_line, lines), delimiter=delimiter, strict=True)


def _csv_line(line: bytes) -> str:
    """Raises `csv.Error` for a line that was cut short, so that the reader begins anew after it."""
    if len(line) >= MAX_TEXT_BYTES:
        raise csv.Error(f"it is longer than {MAX_TEXT_BYTES} bytes")
    return line.decode("utf-8", "surrogateescape")


def _header(lines: _Lines, source: Source, delimiter: str) -> list[str]:
    """The names in the first record. Raises `UsageError` where they are no header."""
    try:
        header: list[str] = next(iter(_reader(lines, delimiter)), [])
        "".join(header).encode()
    except (csv.Error, UnicodeEncodeError) as error:
        raise UsageError(f"{source.uri}: the first line is no header of a table: {error}") from error
    if len(set(header)) != len(header):
        raise UsageError(f"{source.uri}: two columns have the same name; the header is {', '.join(header)}")
    return header


def _csv_records(lines: _Lines, header: list[str], delimiter: str) -> Iterator[Record]:
    reader = _reader(lines, delimiter)
    while True:
        offset = lines.offset
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Record(offset, None, ("broken_record", f"the line at byte {offset} cannot be parsed: {error}"))
            continue
        if not cells:
            continue  # an empty line
        try:
            "".join(cells).encode()
        except UnicodeEncodeError:
            yield Record(offset, None, ("broken_record", f"the line at byte {offset} is not UTF-8"))
            continue
        if len(cells) != len(header):
            message = f"the line at byte {offset} has {len(cells)} cells, the header {len(header)}"
            yield Record(offset, None, ("broken_record", message))
        else:
            yield Record(offset, dict(zip(header, cells, strict=True)))
