"""Folders of images: each image is a source, described by texts beside it or by a table of the folder."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa

from transforms import storage
from transforms.errors import RowRejected, SourceChanged
from transforms.inputs.columns import IMAGE_EXTENSIONS, sample_schema, table_schema
from transforms.inputs.fetch import too_large
from transforms.inputs.formats import tables
from transforms.inputs.formats.format import PEEKED_FILES, Format, Found, Piece, Planned, PlanTask
from transforms.inputs.provenance import check_unchanged
from transforms.inputs.request import InputSchema
from transforms.inputs.rows import Row, batches, fill_sample
from transforms.inputs.uris import relative_to, resolve, stem
from transforms.inputs.values import MAX_TEXT_BYTES, TypeGuess, parse_json
from transforms.ledger.types import Slice, Source

READERS = 16  # at once, to pay a store's latency once for so many images
SIDECARS = ("txt", "json")


def plan(task: PlanTask) -> Planned:
    """A piece for each image; rows of the tables that describe their folder (metadata.csv) come first, if any."""
    inputs = task.inputs
    described = [found for found in inputs.beside if tables.METADATA.matches(found.uri)]
    beside = {found.uri for found in inputs.beside}
    sidecars = tuple(
        ending for ending in SIDECARS if any(f"{stem(found.uri)}.{ending}" in beside for found in inputs.files)
    )
    if described:
        return _plan_described(task, described, sidecars)
    schema = task.schema
    if schema is None:
        fields = _peek_json(inputs.files, beside) if "json" in sidecars else pa.schema([])
        request = replace(task.request, image_column=None)
        schema = sample_schema(request, fields, sidecars, inputs.files[0].root)
        schema = replace(schema, sidecars=sidecars)
    return _images(task.files), schema


def _plan_described(task: PlanTask, described: list[Found], sidecars: tuple[str, ...]) -> Planned:
    """Rows of the metadata files first, then the images that those do not name."""
    guess = TypeGuess()
    pieces: list[Piece] = []
    for found in described:
        pieces += tables.scan(found, tables.METADATA.name, task.rows_per_shard, guess)
    schema = task.schema
    if schema is None:
        request = replace(task.request, image_column=task.request.image_column or "file_name")
        texts = tuple(ending for ending in sidecars if ending == "txt")
        schema = table_schema(request, guess.schema(), described[0].uri)
        schema = replace(schema, caption="txt" if texts else None, caption_field=schema.caption, sidecars=texts)
    named = _named_images(pieces, schema)
    fresh = [piece for piece in pieces if piece.slice.source.uri not in task.known]
    return fresh + _images([found for found in task.files if found.uri not in named]), schema


def _images(files: list[Found]) -> list[Piece]:
    return [Piece(Slice(found.source("files", 1), 0, 1), 1) for found in files]


def _named_images(pieces: list[Piece], schema: InputSchema) -> set[str]:
    """The images that the metadata of their folders names: their rows come from there."""
    named: set[str] = set()
    for source in dict.fromkeys(piece.slice.source for piece in pieces):
        for record in tables.records(source):
            reference = (record.values or {}).get(schema.image or "")
            if isinstance(reference, str) and reference:
                try:
                    named.add(resolve(reference, source.uri, source.root, schema.uri_schemes))
                except RowRejected:
                    continue  # reading it makes that a rejected row
    return named


def _peek_json(files: Iterable[Found], beside: set[str]) -> pa.Schema:
    guess = TypeGuess()
    names = [f"{stem(found.uri)}.json" for found in files]
    for name in [name for name in names if name in beside][:PEEKED_FILES]:
        try:
            guess.add(parse_json(storage.read_bytes(name, limit=MAX_TEXT_BYTES)))
        except RowRejected:
            continue  # reading it makes that a rejected row
    return guess.schema()


def read(
    slices: Iterable[Slice], schema: InputSchema, max_bytes: int, notices: Counter[str]
) -> Iterator[pa.RecordBatch]:
    """Batches of single images, in the order of `slices`; some are read ahead."""
    return batches(_rows(slices, schema, max_bytes, notices), schema)


def _rows(slices: Iterable[Slice], schema: InputSchema, max_bytes: int, notices: Counter[str]) -> Iterator[Row]:
    waiting: deque[Future[tuple[Row, dict[str, bytes]]]] = deque()
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="vqbeam-files")
    try:
        for part in slices:
            waiting.append(pool.submit(_load, part.source, schema, max_bytes))
            if len(waiting) >= READERS:
                yield fill_sample(*waiting.popleft().result(), schema, notices)
        while waiting:
            yield fill_sample(*waiting.popleft().result(), schema, notices)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _load(source: Source, schema: InputSchema, max_bytes: int) -> tuple[Row, dict[str, bytes]]:
    """One image and the texts beside it. Raises `SourceChanged` and `ShardFailed`."""
    row = Row(stem(relative_to(source.uri, source.root)), source.uri)
    check_unchanged(source)
    if source.size > max_bytes:
        rejected = too_large(source.uri, source.size, max_bytes)
        row.error = (rejected.code, rejected.message)
    else:
        try:
            row.payload["image"] = storage.read_bytes(source.uri)
        except FileNotFoundError as error:
            raise SourceChanged(f"{source.uri} is gone since the plan was made") from error
    texts: dict[str, bytes] = {}
    for extension in schema.sidecars:
        try:
            texts[extension] = storage.read_bytes(f"{stem(source.uri)}.{extension}", limit=MAX_TEXT_BYTES)
        except FileNotFoundError:
            continue
    return row, texts


FORMAT = Format("files", tuple(f".{extension}" for extension in IMAGE_EXTENSIONS), ("images",), plan, read)
