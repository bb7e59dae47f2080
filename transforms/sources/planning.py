"""Inputs -> slices and one schema, before anything runs. Lists, peeks and reads text tables once; imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from itertools import pairwise

import pyarrow as pa
import pyarrow.types as pt

from transforms import storage
from transforms.errors import RowRejected, UsageError
from transforms.shards import Slice, Source
from transforms.sources import parquet, tables, webdataset
from transforms.sources.columns import sample_schema, table_schema
from transforms.sources.patterns import METADATA_NAMES, Found, Inputs, find_inputs
from transforms.sources.request import InputRequest, InputSchema
from transforms.sources.samples import MAX_TEXT_BYTES, parse_json
from transforms.sources.uris import folder_of, resolve, scheme_of, stem
from transforms.sources.values import TypeGuess

PEEKED_FILES = 8  # at most, where the first leaves something open
SIDECARS = ("txt", "json")


@dataclass(frozen=True, slots=True)
class Piece:
    """A slice that is not cut further, and its rows: counted, or estimated where only reading it would tell."""

    slice: Slice
    rows: int
    exact: bool


@dataclass(frozen=True)
class InputPlan:
    """What the inputs are: `pieces` in the order of the rows, the `schema` of all of them, and their `format`."""

    format: str
    pieces: tuple[Piece, ...]
    schema: InputSchema

    @property
    def sources(self) -> list[Source]:
        """The files that rows come from, each once, in order."""
        return list(dict.fromkeys(piece.slice.source for piece in self.pieces))


def plan_sources(
    request: InputRequest,
    rows_per_shard: int,
    *,
    schema: InputSchema | None = None,
    known: Collection[str] = (),
) -> InputPlan:
    """List the inputs, fix the schema and cut what is larger than a shard.

    To extend a plan, give its `schema` (kept as it is) and the URIs of its sources as `known` (left out).
    Raises `UsageError` and `EnvironmentFault`.
    """
    inputs = find_inputs(request.patterns, request.input_format)
    if request.kind == "codes" and inputs.format != "parquet":
        raise UsageError(f"{inputs.files[0].uri}: tokens are read from Parquet files, this is {inputs.format}")
    inputs = replace(inputs, files=tuple(found for found in inputs.files if found.uri not in known))
    if not inputs.files and schema is not None:
        return InputPlan(inputs.format, (), schema)
    pieces, found_schema = PLANNERS[inputs.format](inputs, request, rows_per_shard)
    return InputPlan(inputs.format, tuple(pieces), schema or found_schema)


def _source(found: Found, name: str, rows: int | None = None) -> Source:
    return Source(found.uri, name, found.info.size, found.info.version, found.root, rows)


def _scheme(inputs: Inputs) -> str:
    return scheme_of(inputs.files[0].uri)


def _plan_parquet(inputs: Inputs, request: InputRequest, rows_per_shard: int) -> tuple[list[Piece], InputSchema]:
    columns, row_bytes, footers = _peek_parquet(inputs)
    schema = table_schema(request, columns, inputs.files[0].uri, _scheme(inputs))
    pieces: list[Piece] = []
    for found in inputs.files:
        footer = footers.get(found.uri)
        estimate = math.ceil(found.info.size / row_bytes)
        if footer is None and estimate > rows_per_shard:
            footer = _footer(found.uri)
        if footer is None:
            pieces.append(Piece(Slice(_source(found, "parquet")), max(1, min(estimate, rows_per_shard)), exact=False))
            continue
        source = _source(found, "parquet", footer.rows)
        ranges = parquet.cuts(footer.groups, rows_per_shard) or [(0, 0)]
        pieces += [Piece(Slice(source, start, stop), stop - start, exact=True) for start, stop in ranges]
    return pieces, schema


def _peek_parquet(inputs: Inputs) -> tuple[pa.Schema, float, dict[str, parquet.Footer]]:
    """Columns, bytes a row and the footers read: those of the first file, and of some more while columns are without
    a type (all null) or files without rows."""
    footers: dict[str, parquet.Footer] = {}
    columns: pa.Schema | None = None
    for found in inputs.files[:PEEKED_FILES]:
        footer = _footer(found.uri)
        if footer is None:
            continue
        footers[found.uri] = footer
        columns = footer.columns if columns is None else _with_types(columns, footer.columns)
        if footer.rows and not any(pt.is_null(field.type) for field in columns):
            break
    if columns is None:
        raise UsageError(f"{inputs.files[0].uri}: this is no readable Parquet file")
    rows = sum(footer.rows for footer in footers.values())
    size = sum(found.info.size for found in inputs.files if found.uri in footers)
    return columns, max(1.0, size / rows) if rows else 1.0, footers


def _footer(uri: str) -> parquet.Footer | None:
    """None where the file is no Parquet: reading it makes that a rejected row."""
    try:
        return parquet.read_footer(uri)
    except pa.ArrowInvalid:
        return None


def _with_types(columns: pa.Schema, later: pa.Schema) -> pa.Schema:
    """`columns`, with types from `later` where they have none."""
    return pa.schema(
        [
            pa.field(field.name, later.field(field.name).type)
            if pt.is_null(field.type) and field.name in later.names
            else field
            for field in columns
        ]
    )


def _plan_webdataset(inputs: Inputs, request: InputRequest, rows_per_shard: int) -> tuple[list[Piece], InputSchema]:
    guess = TypeGuess()
    extensions: set[str] = set()
    usual = 0.0
    for found in inputs.files[:PEEKED_FILES]:
        peek = webdataset.peek(found.uri, guess)
        extensions |= peek.extensions
        usual = peek.sample_bytes
        if usual:
            break
    schema = sample_schema(request, guess.schema(), extensions, inputs.files[0].uri, _scheme(inputs))
    pieces: list[Piece] = []
    for found in inputs.files:
        source = _source(found, "webdataset")
        packed = found.uri.lower().endswith((".gz", ".tgz"))  # getting to its middle costs unpacking what is before
        estimate = _samples(found, usual)
        if estimate > rows_per_shard and not packed:
            estimate = _samples(found, webdataset.peek(found.uri, TypeGuess()).sample_bytes)
        count = 1 if packed else max(1, math.ceil(estimate / rows_per_shard))
        for index in range(count):
            start = index * rows_per_shard
            stop = start + rows_per_shard if index < count - 1 else None
            rows = rows_per_shard if stop is not None else max(1, estimate - start)
            pieces.append(Piece(Slice(source, start, stop), rows, exact=False))
    return pieces, schema


def _samples(found: Found, sample_bytes: float) -> int:
    return math.ceil(found.info.size / sample_bytes) if sample_bytes else 1


def _plan_table(inputs: Inputs, request: InputRequest, rows_per_shard: int) -> tuple[list[Piece], InputSchema]:
    guess = TypeGuess()
    pieces: list[Piece] = []
    for found in inputs.files:
        pieces += _scan(found, inputs.format, inputs.format, rows_per_shard, guess)
    return pieces, table_schema(request, guess.schema(), inputs.files[0].uri, _scheme(inputs))


def _scan(found: Found, name: str, syntax: str, rows_per_shard: int, guess: TypeGuess) -> list[Piece]:
    scanned = tables.scan(_source(found, name), syntax, rows_per_shard, guess)
    source = _source(found, name, scanned.rows)
    if not scanned.cuts or tables.is_gzipped(found.uri):
        return [Piece(Slice(source, 0, scanned.rows), scanned.rows, exact=True)]
    starts = [*scanned.cuts, (scanned.rows, 0)]
    return [
        Piece(Slice(source, start, following, offset), following - start, exact=True)
        for (start, offset), (following, _) in pairwise(starts)
    ]


def _plan_files(inputs: Inputs, request: InputRequest, rows_per_shard: int) -> tuple[list[Piece], InputSchema]:
    described = [found for found in inputs.beside if found.uri.rpartition("/")[2].lower() in METADATA_NAMES]
    beside = {found.uri for found in inputs.beside}
    sidecars = tuple(
        ending for ending in SIDECARS if any(f"{stem(found.uri)}.{ending}" in beside for found in inputs.files)
    )
    if not described:
        fields = _peek_json(inputs, beside) if "json" in sidecars else pa.schema([])
        schema = sample_schema(replace(request, image_column=None), fields, sidecars, _folder(inputs), _scheme(inputs))
        return _images(inputs, set()), replace(schema, sidecars=sidecars)
    guess = TypeGuess()
    pieces: list[Piece] = []
    for found in described:
        pieces += _scan(found, tables.METADATA, tables.syntax_of(found.uri), rows_per_shard, guess)
    schema = table_schema(
        replace(request, image_column=request.image_column or "file_name"),
        guess.schema(),
        described[0].uri,
        _scheme(inputs),
    )
    texts = tuple(ending for ending in sidecars if ending == "txt")
    schema = replace(schema, caption="txt" if texts else None, caption_field=schema.caption, sidecars=texts)
    return pieces + _images(inputs, _named_images(pieces, schema)), schema


def _folder(inputs: Inputs) -> str:
    return inputs.files[0].root or folder_of(inputs.files[0].uri)


def _images(inputs: Inputs, named: set[str]) -> list[Piece]:
    rest = (found for found in inputs.files if found.uri not in named)
    return [Piece(Slice(_source(found, "files", 1), 0, 1), 1, exact=True) for found in rest]


def _named_images(pieces: list[Piece], schema: InputSchema) -> set[str]:
    """The images that the metadata of their folders names: their rows come from there."""
    named: set[str] = set()
    for source in dict.fromkeys(piece.slice.source for piece in pieces):
        for record in tables.records(source, tables.syntax_of(source.uri)):
            reference = (record.values or {}).get(schema.image or "")
            if isinstance(reference, str) and reference:
                try:
                    named.add(resolve(reference, source.uri, source.root, schema.uri_schemes))
                except RowRejected:
                    continue  # reading it makes that a rejected row
    return named


def _peek_json(inputs: Inputs, beside: set[str]) -> pa.Schema:
    guess = TypeGuess()
    names = [f"{stem(found.uri)}.json" for found in inputs.files]
    for name in [name for name in names if name in beside][:PEEKED_FILES]:
        try:
            guess.add(parse_json(storage.read_bytes(name, limit=MAX_TEXT_BYTES)))
        except RowRejected:
            continue  # reading it makes that a rejected row
    return guess.schema()


PLANNERS: dict[str, Callable[[Inputs, InputRequest, int], tuple[list[Piece], InputSchema]]] = {
    "parquet": _plan_parquet,
    "webdataset": _plan_webdataset,
    "files": _plan_files,
    "csv": _plan_table,
    "tsv": _plan_table,
    "jsonl": _plan_table,
}
