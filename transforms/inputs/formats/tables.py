"""Text tables (csv, tsv, jsonl, txt, each also gzipped): records with the byte at which they begin, and rows from them.

Planning and reading go through the same parser, so that row numbers and offsets mean the same to both.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, BinaryIO, cast

from transforms import storage
from transforms.batch import IMAGE
from transforms.errors import RowRejected, UsageError, brief, shortened
from transforms.inputs.embedded import embedded_image
from transforms.inputs.file_list import Found
from transforms.inputs.formats.format import Format, Piece, Planned, PlanTask, by_slice
from transforms.inputs.formats.metadata_parquet import parquet_records
from transforms.inputs.hive import values_of
from transforms.inputs.quoting import Marks
from transforms.inputs.request import InputSchema, Kind, Quoting
from transforms.inputs.rows import MAX_PROMPT_BYTES, Row, fill_prompt
from transforms.inputs.uris import relative_to, resolve, stem
from transforms.inputs.values import MAX_TEXT_BYTES, TypeGuess, caption_of, key_of, parse_json, passed, shown
from transforms.ledger.types import Slice, Source

UTF8_BOM = b"\xef\xbb\xbf"
LINE = "prompt"  # the one column of a txt: a line is a row
HEAD = 1 << 16  # bytes that tell the encoding
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
PARQUET = "parquet"  # of a metadata file alone: others are a format of their own
DELIMITERS = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a table: `values` by column, or its error; `offset` is the byte of the file at which it begins."""

    offset: int
    values: Mapping[str, Any] | None
    error: tuple[str, str] | None = None


def plan(task: PlanTask) -> Planned:
    """Pieces that begin at known bytes: every table is read once."""
    guess = TypeGuess()
    pieces: list[Piece] = []
    quoting = _settle_quoting(task)
    for found in task.files:
        pieces += scan(found, task.inputs.format, task.rows_per_shard, guess, quoting)
    columns = guess.schema()
    if task.schema is None and not columns.names and not any(piece.rows for piece in pieces):
        others = len(task.files) - 1
        raise UsageError(f"{task.first} is empty" + (f", as are the {others:,} other files" if others else ""))
    return pieces, task.schema or replace(task.table_schema(columns), quoting=quoting)


def _settle_quoting(task: PlanTask) -> Quoting:
    """What quotation marks are in these tables: as asked or planned, else quotes in a csv, and in a tsv what the marks
    in it say. Raises `UsageError` if they say two things."""
    asked = task.request.quoting or "auto"
    planned = None if task.schema is None else task.schema.quoting
    if asked != "auto" or task.inputs.format != TSV.name:
        return planned or ("none" if asked == "none" else "csv")
    settled, settled_by = planned, "the plan"
    for found in task.files:
        verdict = _quoting_of(found.source(TSV.name))
        if verdict is None:
            continue
        if settled not in (None, verdict):
            raise UsageError(
                f"quotation marks enclose cells in some tables and are text in others: {settled_by} says {settled}, "
                f"{found.uri} {verdict}; run a job for each kind, or say what they are: csv, or none",
                option="quoting",
            )
        settled, settled_by = verdict, found.uri
    return settled or "none"


def _quoting_of(source: Source) -> Quoting | None:
    """What the quotation marks in a tsv are; None if it has none. Raises `UsageError` if they can be read both ways."""
    _check_encoding(source)
    csv.field_size_limit(MAX_TEXT_BYTES)
    marks = Marks()
    with storage.open_unpacked(source.uri, whole=True) as stream, suppress(EOFError, zlib.error, gzip.BadGzipFile):
        marks.look(line.decode("utf-8", "surrogateescape") for line in _Lines(stream, 0))
    try:
        return marks.verdict()
    except ValueError as error:
        raise UsageError(
            f"{source.uri}: {error}; say what quotation marks are: csv (they enclose cells), or none (text)",
            option="quoting",
        ) from error


def scan(found: Found, format: str, rows_per_piece: int, guess: TypeGuess, quoting: Quoting = "csv") -> list[Piece]:
    """The pieces of one table; `guess` learns the types of its fields.

    It learns from every record of a jsonl or Parquet file, and from the header of the others: their cells are strings.
    """
    source = found.source(format)
    syntax = _syntax(source)
    if syntax != PARQUET:
        _check_encoding(source)
    starts: list[tuple[int, int]] = []  # row and byte
    rows = 0
    if syntax == "txt":
        guess.add({LINE: ""})
    elif syntax in DELIMITERS:
        guess.add(dict.fromkeys(_read_header(source, quoting), ""))
    for record in records(source, quoting=quoting):
        if rows % rows_per_piece == 0:
            starts.append((rows, record.offset))
        rows += 1
        if record.values is not None and syntax in ("jsonl", PARQUET):
            guess.add(record.values)
    source = found.source(format, rows)
    if not starts or _is_gzipped(found.uri):
        return [Piece(Slice(source, 0, rows), rows)]
    return [
        Piece(Slice(source, start, stop, offset), stop - start)
        for (start, offset), (stop, _) in pairwise([*starts, (rows, 0)])
    ]


def _syntax(source: Source) -> str:
    """csv, tsv, jsonl or txt: the format, or for a metadata file its ending, which may be parquet, too."""
    return source.uri.lower().rpartition(".")[2] if source.format == METADATA.name else source.format


def _is_gzipped(uri: str) -> bool:
    with storage.open_unpacked(uri) as stream:
        return isinstance(stream, gzip.GzipFile)


def read(part: Slice, schema: InputSchema, max_bytes: int, notices: Counter[str]) -> Iterator[Row]:
    """Rows [start, stop) of a table, from the byte where row `start` begins."""
    source = part.source
    prefix = stem(relative_to(source.uri, source.root))
    folders = values_of(source, schema)
    number = part.start if part.offset else 0
    quoting = schema.quoting if source.format in DELIMITERS else "csv"
    for record in records(source, part.offset, quoting, part.whole):
        if part.stop is not None and number >= part.stop:
            return
        if number >= part.start:
            if record.values is not None and folders:
                record = replace(record, values={**record.values, **folders})
            yield _row(record, f"{prefix}-{number:09d}", f"{source.uri}#{number}", source, schema, notices)
        number += 1


def _row(record: Record, key: str, uri: str, source: Source, schema: InputSchema, notices: Counter[str]) -> Row:
    row = Row(key, uri, error=record.error)
    if record.values is None:
        return row
    if schema.kind == "prompts":
        fill_prompt(row, record.values, schema)
    else:
        _fill_image(row, record.values, source, schema, notices if schema.reading > 1 else None)
    if not schema.chosen:
        for name in record.values.keys() - schema.known:
            notices[f"column {brief(name)!r}, which the plan has not, was left out"] += 1
    return row


def _fill_image(
    row: Row, values: Mapping[str, Any], source: Source, schema: InputSchema, notices: Counter[str] | None
) -> None:
    key = row.key
    try:
        if schema.key is not None:
            row.key = key_of(values.get(schema.key)) or key
        if schema.status is not None and values.get(schema.status) != "success":
            row.filtered = "status"
        caption = schema.caption_field if source.format == METADATA.name else schema.caption
        if caption is not None:
            row.caption = caption_of(values.get(caption), schema.caption_is_list)
        row.values = passed(values, schema.origins, schema.passthrough, notices)
        reference = values.get(cast(str, schema.image))
        if reference is None or reference == "":
            raise RowRejected("missing_image", f"the cell of {schema.image} is null")
        if not isinstance(reference, str):
            raise RowRejected("schema_mismatch", f"{schema.image} is {shown(reference)}, not a path or a URI")
        data = embedded_image(reference)
        if data is not None:
            row.payload[IMAGE] = data
            return
        image = row.payload["image_uri"] = resolve(reference, source.uri, source.root, schema.uri_schemes)
        if source.format == METADATA.name and row.key == key:
            row.key = stem(relative_to(image, source.root))
    except RowRejected as rejected:
        row.reject(rejected)


def _check_encoding(source: Source) -> None:
    """Raises `UsageError` for a table whose lines cannot be told apart."""
    try:
        with storage.open_unpacked(source.uri) as stream:
            head = stream.read(HEAD)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return  # reading it makes that a rejected row
    every_other_is_null = [byte == 0 for byte in head[:4]] in ([False, True] * 2, [True, False] * 2)
    if head.startswith(UTF16) or every_other_is_null:
        rows = "prompts" if source.format == TXT.name else "tables"
        raise UsageError(
            f"{source.uri} is UTF-16; {rows} are read as UTF-8: convert it first (iconv -f UTF-16 -t UTF-8)"
        )
    if b"\n" not in head and b"\r" in head.rstrip():
        raise UsageError(
            f"{source.uri} has lines that end in a carriage return alone, as on old Macs: convert it first "
            "(tr '\\r' '\\n')"
        )


def _read_header(source: Source, quoting: Quoting) -> list[str]:
    """The column names of a csv or tsv. Raises `UsageError`."""
    with storage.open_unpacked(source.uri) as stream:
        return _header(_Lines(stream, 0), source, quoting)


def records(source: Source, offset: int = 0, quoting: Quoting = "csv", whole: bool = True) -> Iterator[Record]:
    """Every record from the byte `offset` on (0, or where a record begins), in order, broken ones too.

    A caller who will not take all of the table says so by `whole`, and fewer bytes of a store are read ahead.
    """
    syntax = _syntax(source)
    if syntax == PARQUET:
        yield from (Record(0, values) for values in parquet_records(source.uri))
        return
    with storage.open_unpacked(source.uri, whole=whole) as stream:
        header = _header(_Lines(stream, 0), source, quoting) if syntax in DELIMITERS and offset else []
        stream.seek(offset)
        lines = _Lines(stream, offset)
        try:
            if syntax in DELIMITERS:
                header = header or _header(lines, source, quoting)
                parse_cells = _csv_records if quoting == "csv" else _plain_records
                yield from parse_cells(lines, header, DELIMITERS[syntax])
            else:
                parse = _json_values if syntax == "jsonl" else _prompt_values
                yield from _line_records(lines, parse)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield Record(lines.offset, None, ("broken_archive", f"the gzipped table breaks off here: {error}"))


class _Lines:
    """Lines of a table; `offset` is the byte after the last one. A line beyond `MAX_TEXT_BYTES` comes cut short."""

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


def _line_records(lines: _Lines, parse: Callable[[bytes, int], Mapping[str, Any] | None]) -> Iterator[Record]:
    """A record for each line of which `parse`, given its offset as well, makes one."""
    offset = lines.offset
    for line in lines:
        try:
            values = parse(line, offset)
            if values is not None:
                yield Record(offset, values)
        except RowRejected as rejected:
            yield Record(offset, None, (rejected.code, rejected.message))
        offset = lines.offset


def _json_values(line: bytes, offset: int) -> Mapping[str, Any] | None:
    if not line.strip():
        return None
    if len(line) >= MAX_TEXT_BYTES:
        raise RowRejected("broken_record", f"the line is longer than {MAX_TEXT_BYTES} bytes")
    return parse_json(line)


def _prompt_values(line: bytes, offset: int) -> Mapping[str, Any]:
    """Of blank lines too: the row of a prompt is its line in every editor."""
    if len(line) >= MAX_TEXT_BYTES:
        message = f"the line has at least {MAX_TEXT_BYTES} bytes, a prompt at most {MAX_PROMPT_BYTES}"
        raise RowRejected("prompt_too_long", message)
    try:
        return {LINE: line.removesuffix(b"\n").removesuffix(b"\r").decode()}
    except UnicodeDecodeError as error:
        raise RowRejected("broken_record", f"the line at byte {offset} is not UTF-8: {error}") from error


def _reader(lines: _Lines, delimiter: str) -> Any:
    csv.field_size_limit(MAX_TEXT_BYTES)
    return csv.reader(map(_csv_line, lines), delimiter=delimiter, strict=True)


def _csv_line(line: bytes) -> str:
    """Raises `csv.Error` for a line that was cut short, so that the reader begins anew after it."""
    if len(line) >= MAX_TEXT_BYTES:
        raise csv.Error(f"it is longer than {MAX_TEXT_BYTES} bytes")
    return line.decode("utf-8", "surrogateescape")


def _header(lines: _Lines, source: Source, quoting: Quoting) -> list[str]:
    """The names in the first record. Raises `UsageError` if they are no header."""
    delimiter = DELIMITERS[_syntax(source)]
    try:
        if quoting == "csv":
            header: list[str] = next(iter(_reader(lines, delimiter)), [])
        else:
            header = next((_csv_line(line).rstrip("\r\n").split(delimiter) for line in lines), [])
        "".join(header).encode()
    except (csv.Error, UnicodeEncodeError) as error:
        raise UsageError(f"{source.uri}: the first line is no header of a table: {error}") from error
    if len(set(header)) != len(header):
        names = shortened(", ".join(map(brief, header)))
        raise UsageError(f"{source.uri}: two columns have the same name; the header is {names}")
    return header


def _plain_records(lines: _Lines, header: list[str], delimiter: str) -> Iterator[Record]:
    """A record for each line that is not empty; quotation marks are text."""

    def parse(line: bytes, offset: int) -> Mapping[str, Any] | None:
        try:
            text = _csv_line(line).rstrip("\r\n")
            text.encode()
        except csv.Error as error:
            raise RowRejected("broken_record", f"the line at byte {offset} cannot be parsed: {error}") from error
        except UnicodeEncodeError as error:
            raise RowRejected("broken_record", f"the line at byte {offset} is not UTF-8") from error
        if not text:
            return None
        cells = text.split(delimiter)
        if len(cells) != len(header):
            fault = f"has {len(cells)} cells, the header {len(header)}"
            raise RowRejected("broken_record", f"the line at byte {offset} {fault}")
        return dict(zip(header, cells, strict=True))

    return _line_records(lines, parse)


def _csv_records(lines: _Lines, header: list[str], delimiter: str) -> Iterator[Record]:
    reader = _reader(lines, delimiter)
    while True:
        offset = lines.offset
        try:
            cells = next(reader, None)
            if cells is None:
                return
            "".join(cells).encode()
        except csv.Error as error:
            fault = f"cannot be parsed: {error}"
        except UnicodeEncodeError:
            fault = "is not UTF-8"
        else:
            if not cells:
                continue  # an empty line
            if len(cells) == len(header):
                yield Record(offset, dict(zip(header, cells, strict=True)))
                continue
            fault = f"has {len(cells)} cells, the header {len(header)}"
        yield Record(offset, None, ("broken_record", f"the line at byte {offset} {fault}"))


def _table(name: str, endings: tuple[str, ...], kinds: tuple[Kind, ...]) -> Format:
    return Format(name, endings, kinds, plan, partial(by_slice, read))


CSV = _table("csv", (".csv", ".csv.gz"), ("images", "prompts"))
TSV = _table("tsv", (".tsv", ".tsv.gz"), ("images", "prompts"))
JSONL = _table("jsonl", (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"), ("images", "prompts"))
TXT = _table("txt", (".txt", ".txt.gz"), ("prompts",))  # beside images, a .txt is a caption
METADATA = _table(
    "metadata", ("/metadata.csv", "/metadata.jsonl", "/metadata.parquet"), ()
)  # describes the images of its folder
