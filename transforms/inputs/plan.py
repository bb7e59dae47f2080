"""Inputs -> slices and one schema, before anything runs. Lists, peeks and reads text tables once; imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import pyarrow as pa
import pyarrow.types as pt

from transforms import storage
from transforms.errors import RowRejected, UsageError
from transforms.inputs.columns import sample_schema, table_schema
from transforms.inputs.formats import parquet, tables, webdataset
from transforms.inputs.formats.prompts import MAX_PROMPT_BYTES
from transforms.inputs.listing import METADATA_NAMES, Found, Inputs, find_inputs
from transforms.inputs.request import InputRequest, InputSchema
from transforms.inputs.samples import MAX_TEXT_BYTES, parse_json
from transforms.inputs.uris import resolve, scheme_of, stem
from transforms.inputs.values import TypeGuess
from transforms.ledger.types import INLINE, Slice, Source

PEEKED_FILES = 8  # at most, where the first leaves something open
SIDECARS = ("txt", "json")
MAX_PROMPTS = 10_000  # that a plan carries itself
PEEKERS = 16  # files looked into at once, so that a store's latency is paid once for so many


@dataclass(frozen=True, slots=True)
class Piece:
    """A slice that is not cut further, and its rows: counted, or estimated where only reading it would tell."""

    slice: Slice
    rows: int
    exact: bool


@dataclass(frozen=True)
class InputPlan:
    """What the inputs are: `pieces` in the order of the rows, the `schema` of all of them, and their `format`.

    `listed` are all files of the inputs as they are now, also those of a plan that is extended.
    """

    format: str
    pieces: tuple[Piece, ...]
    schema: InputSchema
    listed: tuple[storage.FileInfo, ...] = ()

    @property
    def sources(self) -> list[Source]:
        """The files that rows come from, each once, in order."""
        return list(dict.fromkeys(piece.slice.source for piece in self.pieces))


@dataclass(frozen=True)
class _Task:
    """What the planner of a format is asked: `schema` and `known` are those of the plan that is extended, if any."""

    inputs: Inputs
    request: InputRequest
    rows_per_shard: int
    schema: InputSchema | None
    known: Collection[str]

    @property
    def files(self) -> list[Found]:
        """The files that are not planned yet."""
        return [found for found in self.inputs.files if found.uri not in self.known]

    @property
    def first(self) -> str:
        return self.inputs.files[0].uri

    @property
    def scheme(self) -> str:
        return scheme_of(self.first)

    def table_schema(self, columns: pa.Schema) -> InputSchema:
        return self.schema or table_schema(self.request, columns, self.first, self.scheme)


def plan_sources(
    request: InputRequest,
    rows_per_shard: int,
    *,
    schema: InputSchema | None = None,
    known: Collection[str] = (),
    inputs: Inputs | None = None,
) -> InputPlan:
    """List the inputs, where `inputs` are not given already, fix the schema and cut what is larger than a shard.

    To extend a plan, give its `schema` (kept as it is) and the URIs of its sources as `known` (left out).
    Raises `UsageError` and `ShardFailed`.
    """
    if request.prompts:
        return _plan_inline(request, rows_per_shard, schema, known)
    inputs = inputs or find_inputs(request.patterns, request.input_format, request.kind)
    if request.kind == "codes" and inputs.format != "parquet":
        raise UsageError(f"{inputs.files[0].uri}: tokens are read from Parquet files, this is {inputs.format}")
    task = _Task(inputs, request, rows_per_shard, schema, frozenset(known))
    pieces, found_schema = PLANNERS[inputs.format](task)
    listed = tuple(found.info for found in (*inputs.files, *inputs.beside))
    return InputPlan(inputs.format, tuple(pieces), found_schema, listed)


def _plan_inline(
    request: InputRequest, rows_per_shard: int, schema: InputSchema | None, known: Collection[str]
) -> InputPlan:
    """Prompts given in the place of files. They count as one source, which is known or not."""
    prompts = request.prompts
    if request.patterns:
        raise UsageError("--prompt and --input contradict each other: give one of them")
    if len(prompts) > MAX_PROMPTS:
        raise UsageError(
            f"{len(prompts)} texts for --prompt, more than {MAX_PROMPTS}: write them to a .txt file, one a line, and "
            "give that as --input"
        )
    sizes = [_prompt_bytes(number, prompt) for number, prompt in enumerate(prompts)]
    source = Source("--prompt", INLINE, sum(sizes), "", rows=len(prompts))
    pieces: list[Piece] = []
    for start in range(0, 0 if source.uri in known else len(prompts), rows_per_shard):
        texts = prompts[start : start + rows_per_shard]
        pieces.append(Piece(Slice(source, start, start + len(texts), texts=texts), len(texts), exact=True))
    columns = pa.schema([("prompt", pa.string())])
    return InputPlan(INLINE, tuple(pieces), schema or table_schema(request, columns, source.uri, "file"))


def _prompt_bytes(number: int, prompt: str) -> int:
    try:
        size = len(prompt.encode())
    except UnicodeEncodeError as error:
        raise UsageError(f"--prompt number {number} is not UTF-8") from error
    if size > MAX_PROMPT_BYTES:
        raise UsageError(f"--prompt number {number} has {size} bytes, more than {MAX_PROMPT_BYTES}")
    return size


def _source(found: Found, name: str, rows: int | None = None) -> Source:
    return Source(found.uri, name, found.info.size, found.info.version, found.root, rows)


def _plan_parquet(task: _Task) -> tuple[list[Piece], InputSchema]:
    columns, row_bytes, footers = _peek_parquet(task.inputs)
    schema = task.table_schema(columns)

    def is_large(found: Found) -> bool:
        return found.info.size / row_bytes > task.rows_per_shard

    large = [found.uri for found in task.files if found.uri not in footers and is_large(found)]
    with ThreadPoolExecutor(PEEKERS) as pool:
        footers.update(zip(large, pool.map(_footer, large), strict=True))
    pieces: list[Piece] = []
    for found in task.files:
        footer = footers.get(found.uri)
        if footer is None:
            rows = min(math.ceil(found.info.size / row_bytes), task.rows_per_shard)
            pieces.append(Piece(Slice(_source(found, "parquet")), max(1, rows), exact=False))
            continue
        source = _source(found, "parquet", footer.rows)
        ranges = parquet.cuts(footer.groups, task.rows_per_shard) or [(0, 0)]
        pieces += [Piece(Slice(source, start, stop), stop - start, exact=True) for start, stop in ranges]
    return pieces, schema


def _peek_parquet(inputs: Inputs) -> tuple[pa.Schema, float, dict[str, parquet.Footer | None]]:
    """Columns, bytes a row and the footers read: those of the first file, and of some more while columns are without
    a type (all null) or files without rows."""
    footers: dict[str, parquet.Footer | None] = {}
    rows = size = 0
    columns: pa.Schema | None = None
    for found in inputs.files[:PEEKED_FILES]:
        footer = footers[found.uri] = _footer(found.uri)
        if footer is None:
            continue
        rows += footer.rows
        size += found.info.size
        columns = footer.columns if columns is None else _with_types(columns, footer.columns)
        if footer.rows and not any(pt.is_null(field.type) for field in columns):
            break
    if columns is None:
        raise UsageError(f"{inputs.files[0].uri}: this is no readable Parquet file")
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


def _plan_webdataset(task: _Task) -> tuple[list[Piece], InputSchema]:
    guess = TypeGuess()
    extensions: set[str] = set()
    usual = 0.0
    for found in task.inputs.files[:PEEKED_FILES]:
        peek = webdataset.peek(found.uri, guess)
        extensions |= peek.extensions
        usual = peek.sample_bytes
        if usual:
            break
    schema = task.schema or sample_schema(task.request, guess.schema(), extensions, task.first, task.scheme)
    large = [found for found in task.files if _samples(found, usual) > task.rows_per_shard and not _is_packed(found)]
    with ThreadPoolExecutor(PEEKERS) as pool:
        own = dict(zip((found.uri for found in large), pool.map(_sample_bytes, large), strict=True))
    pieces: list[Piece] = []
    for found in task.files:
        source = _source(found, "webdataset")
        estimate = _samples(found, own.get(found.uri, usual))
        count = 1 if _is_packed(found) else max(1, math.ceil(estimate / task.rows_per_shard))
        for index in range(count):
            start = index * task.rows_per_shard
            stop = start + task.rows_per_shard if index < count - 1 else None
            rows = task.rows_per_shard if stop is not None else max(1, estimate - start)
            pieces.append(Piece(Slice(source, start, stop), rows, exact=False))
    return pieces, schema


def _is_packed(found: Found) -> bool:
    """A gzipped tar stays whole: getting to its middle costs unpacking all that is before."""
    return found.uri.lower().endswith((".gz", ".tgz"))


def _sample_bytes(found: Found) -> float:
    return webdataset.peek(found.uri, TypeGuess()).sample_bytes


def _samples(found: Found, sample_bytes: float) -> int:
    return math.ceil(found.info.size / sample_bytes) if sample_bytes else 1


def _plan_table(task: _Task) -> tuple[list[Piece], InputSchema]:
    guess = TypeGuess()
    pieces: list[Piece] = []
    for found in task.files:
        pieces += _scan(found, task.inputs.format, task.inputs.format, task.rows_per_shard, guess)
    columns = guess.schema()
    if task.schema is None and not columns.names and not any(piece.rows for piece in pieces):
        others = len(task.files) - 1
        raise UsageError(f"{task.first} is empty" + (f", as are the {others:,} other files" if others else ""))
    return pieces, task.table_schema(columns)


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


def _plan_files(task: _Task) -> tuple[list[Piece], InputSchema]:
    inputs = task.inputs
    described = [found for found in inputs.beside if found.uri.rpartition("/")[2].lower() in METADATA_NAMES]
    beside = {found.uri for found in inputs.beside}
    sidecars = tuple(
        ending for ending in SIDECARS if any(f"{stem(found.uri)}.{ending}" in beside for found in inputs.files)
    )
    if described:
        return _plan_described(task, described, sidecars)
    schema = task.schema
    if schema is None:
        fields = _peek_json(inputs, beside) if "json" in sidecars else pa.schema([])
        where = inputs.files[0].root
        schema = sample_schema(replace(task.request, image_column=None), fields, sidecars, where, task.scheme)
        schema = replace(schema, sidecars=sidecars)
    return _images(task.files), schema


def _plan_described(task: _Task, described: list[Found], sidecars: tuple[str, ...]) -> tuple[list[Piece], InputSchema]:
    """Rows of the metadata files first, then the images that those do not name."""
    guess = TypeGuess()
    pieces: list[Piece] = []
    for found in described:
        pieces += _scan(found, tables.METADATA, tables.syntax_of(found.uri), task.rows_per_shard, guess)
    schema = task.schema
    if schema is None:
        request = replace(task.request, image_column=task.request.image_column or "file_name")
        texts = tuple(ending for ending in sidecars if ending == "txt")
        schema = table_schema(request, guess.schema(), described[0].uri, task.scheme)
        schema = replace(schema, caption="txt" if texts else None, caption_field=schema.caption, sidecars=texts)
    named = _named_images(pieces, schema)
    fresh = [piece for piece in pieces if piece.slice.source.uri not in task.known]
    return fresh + _images([found for found in task.files if found.uri not in named]), schema


def _images(files: list[Found]) -> list[Piece]:
    return [Piece(Slice(_source(found, "files", 1), 0, 1), 1, exact=True) for found in files]


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


PLANNERS: dict[str, Callable[[_Task], tuple[list[Piece], InputSchema]]] = {
    "parquet": _plan_parquet,
    "webdataset": _plan_webdataset,
    "files": _plan_files,
    "csv": _plan_table,
    "tsv": _plan_table,
    "jsonl": _plan_table,
    "txt": _plan_table,
}
