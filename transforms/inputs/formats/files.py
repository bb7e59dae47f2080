"""Folders of images: each image is a source, described by texts beside it or by a table of the folder."""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain, islice, repeat
from typing import cast

import numpy as np
import pyarrow as pa

from transforms import storage
from transforms.errors import RowRejected, SourceChanged, UsageError
from transforms.inputs.columns import IMAGE_EXTENSIONS, sample_schema, table_schema
from transforms.inputs.fetch import too_large
from transforms.inputs.file_list import FileList, Found
from transforms.inputs.formats import tables
from transforms.inputs.formats.format import PEEKED_FILES, PEEKERS, Format, Inputs, Piece, Planned, PlanTask
from transforms.inputs.provenance import OTHER_TIME, check_unchanged
from transforms.inputs.request import InputSchema
from transforms.inputs.rows import Row, batches, fill_sample
from transforms.inputs.texts import ending_of, text_uri
from transforms.inputs.uri_set import UriSet
from transforms.inputs.uris import relative_to, resolve, stem
from transforms.inputs.values import MAX_TEXT_BYTES, TypeGuess
from transforms.ledger.types import Slice, Source
from transforms.sequences import MadeOnDemand

READERS = 16  # at once, to pay a store's latency once for so many images
PEEKED_JSON = 512  # files, while a field has been null only
CAPTIONS = ("txt", "caption")  # endings of texts that are captions, the preferred one first
JSON = "json"


class Pieces(MadeOnDemand[Piece]):
    """Pieces of tables, then one for each image, which is made when it is asked for: there may be millions."""

    def __init__(self, tables: Sequence[Piece], images: Sequence[Found]) -> None:
        self._tables = tables
        self._images = images

    def __len__(self) -> int:
        return len(self._tables) + len(self._images)

    def make(self, number: int) -> Piece:
        if number < len(self._tables):
            return self._tables[number]
        return _image_piece(self._images[number - len(self._tables)])

    def row_counts(self) -> Iterator[int]:
        """The rows of each piece."""
        return chain((piece.rows for piece in self._tables), repeat(1, len(self._images)))

    def __iter__(self) -> Iterator[Piece]:
        yield from self._tables
        yield from map(_image_piece, self._images)


def _image_piece(found: Found) -> Piece:
    return Piece(Slice(found.source("files", 1), 0, 1), 1)


def plan(task: PlanTask) -> Planned:
    """A piece for each image; rows of the tables that describe their folder (metadata.csv) come first, if any."""
    inputs = task.inputs
    if inputs.described:
        return _plan_described(task, list(inputs.described))
    if task.schema is not None:
        return Pieces((), task.files), task.schema
    spellings = inputs.texts.spellings
    endings = {ending_of(spelling) for spelling in spellings}
    fields = _peek_json(inputs) if JSON in endings else pa.schema([])
    request = task.request
    if request.image_column:
        where = inputs.files[0].root
        raise UsageError(f"each image file in {where} is an image: there is no column for them", option="image_column")
    named = request.caption_column
    if named and named not in fields.names and named.lower() in endings:
        request = replace(request, caption_column=named.lower())
    if not endings.isdisjoint(CAPTIONS):
        endings.add(CAPTIONS[0])
    schema = sample_schema(request, fields, endings, inputs.files[0].root)
    captions = () if schema.caption is None else (schema.caption,) if request.caption_column else CAPTIONS
    return Pieces((), task.files), replace(schema, sidecars=_sidecars(spellings, (*captions, JSON)))


def _sidecars(spellings: Iterable[str], endings: Sequence[str]) -> tuple[str, ...]:
    """The spellings of some endings: by ending, then as it is usual."""

    def order(spelling: str) -> tuple[int, bool, str]:
        ending = ending_of(spelling)
        return endings.index(ending), spelling != ending, spelling

    return tuple(sorted((spelling for spelling in spellings if ending_of(spelling) in endings), key=order))


def unread(inputs: Inputs, schema: InputSchema) -> Iterator[Found]:
    """The files beside the images that are no text of one, or another text than the one that is read, or a text of an
    image that a table of the folder names."""
    texts = inputs.texts
    read = _read_by_themselves(inputs, schema, texts.images)
    ranks = [schema.sidecars.index(one) if one in schema.sidecars else -1 for one in texts.spellings]
    is_json = [ending_of(one) == JSON and schema.caption != JSON for one in texts.spellings]
    best: dict[tuple[int, bool], int] = {}
    if len(schema.sidecars) > 1:  # an image may have several captions
        for number, image in zip(texts.numbers, texts.images, strict=True):
            if number >= 0 and ranks[number] >= 0:
                key = (image, is_json[number])
                best[key] = min(best.get(key, len(ranks)), ranks[number])
    for found, number, image, own in zip(inputs.beside, texts.numbers, texts.images, read, strict=True):
        if (
            number < 0
            or ranks[number] < 0
            or not own
            or best.get((image, is_json[number]), ranks[number]) != ranks[number]
        ):
            yield found


def _read_by_themselves(inputs: Inputs, schema: InputSchema, images: Sequence[int]) -> Iterable[bool]:
    """For each of `images` (`TextsBeside.images`), whether no table of the folder names it."""
    if not inputs.described:
        return repeat(True, len(images))
    named = UriSet((uri, "") for uri in named_images(inputs.described, schema))
    others = array("q", (hash(stem(found.uri)) for found in inputs.files if found.uri not in named))
    return cast("list[bool]", np.isin(np.array(images, np.int64), np.array(others, np.int64)).tolist())


def _plan_described(task: PlanTask, described: list[Found]) -> Planned:
    """Rows of the metadata files first, then the images that those do not name."""
    guess = TypeGuess()
    pieces: list[Piece] = []
    for found in described:
        pieces += tables.scan(found, tables.METADATA.name, task.rows_per_shard, guess)
    schema = task.schema
    if schema is None:
        request = replace(task.request, image_column=task.request.image_column or "file_name")
        texts = _sidecars(task.inputs.texts.spellings, CAPTIONS)
        schema = table_schema(request, guess.schema(), described[0].uri)
        schema = replace(schema, caption=CAPTIONS[0] if texts else None, caption_field=schema.caption, sidecars=texts)
    named = UriSet((uri, "") for uri in named_images(described, schema))
    fresh = [piece for piece in pieces if piece.slice.source.uri not in task.known]
    return Pieces(fresh, FileList(found for found in task.files if found.uri not in named)), schema


def named_images(described: Iterable[Found], schema: InputSchema) -> Iterator[str]:
    """The images that the metadata of their folders names: their rows come from there."""
    for source in (found.source(tables.METADATA.name) for found in described):
        for record in tables.records(source):
            reference = (record.values or {}).get(schema.image or "")
            if isinstance(reference, str) and reference:
                try:
                    yield resolve(reference, source.uri, source.root, schema.uri_schemes)
                except RowRejected:
                    continue  # reading it makes that a rejected row


def _peek_json(inputs: Inputs) -> pa.Schema:
    """The types of the fields of the first json files, and of more of them while a field has been null only."""
    guess = TypeGuess()
    texts = inputs.texts
    json = {number for number, spelling in enumerate(texts.spellings) if ending_of(spelling) == JSON}
    beside = (found for found, number in zip(inputs.beside, texts.numbers, strict=True) if number in json)
    with ThreadPoolExecutor(PEEKERS) as pool:
        for start in range(0, PEEKED_JSON, PEEKERS):
            uris = [found.uri for found in islice(beside, PEEKERS if start else PEEKED_FILES)]
            for data in pool.map(partial(storage.read_bytes, limit=MAX_TEXT_BYTES), uris):
                guess.add_json(data)
            if not guess.has_nulls_only:
                break
    return guess.schema()


def read(
    slices: Iterable[Slice], schema: InputSchema, max_bytes: int, notices: Counter[str]
) -> Iterator[pa.RecordBatch]:
    """Batches of single images, in the order of `slices`; some are read ahead."""
    return batches(_rows(slices, schema, max_bytes, notices), schema)


def _rows(slices: Iterable[Slice], schema: InputSchema, max_bytes: int, notices: Counter[str]) -> Iterator[Row]:
    waiting: deque[Future[tuple[Row, dict[str, bytes], bool]]] = deque()

    def next_row() -> Row:
        row, texts, touched = waiting.popleft().result()
        if touched:
            notices[OTHER_TIME] += 1
        return fill_sample(row, texts, schema, notices)

    pool = ThreadPoolExecutor(READERS, thread_name_prefix="vqbeam-files")
    try:
        for part in slices:
            waiting.append(pool.submit(_load, part.source, schema, max_bytes))
            if len(waiting) >= READERS:
                yield next_row()
        while waiting:
            yield next_row()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _load(source: Source, schema: InputSchema, max_bytes: int) -> tuple[Row, dict[str, bytes], bool]:
    """One image, the texts beside it, and whether it has another time than in the plan.

    It is compared with the plan once it is read: a store gives a whole object of one version.
    Raises `SourceChanged` and `ShardFailed`.
    """
    row = Row(stem(relative_to(source.uri, source.root)), source.uri)
    if source.size > max_bytes:
        rejected = too_large(source.uri, source.size, max_bytes)
        row.error = (rejected.code, rejected.message)
    else:
        try:
            row.payload["image"] = storage.read_bytes(source.uri)
        except FileNotFoundError as error:
            raise SourceChanged(f"{source.uri} is gone since the plan was made: restore it") from error
    touched = check_unchanged(source)
    return row, _texts(row, source.uri, schema), touched


def _texts(row: Row, uri: str, schema: InputSchema) -> dict[str, bytes]:
    """The texts of an image, under the names that `schema` has for them: of several captions the first. One that is too
    large rejects the row."""
    texts: dict[str, bytes] = {}
    for spelling in schema.sidecars:
        ending = ending_of(spelling)
        name = ending if ending == JSON or schema.caption is None else schema.caption
        if name in texts:
            continue
        beside = text_uri(uri, spelling)
        try:
            data = storage.read_bytes(beside, limit=MAX_TEXT_BYTES + 1)
        except storage.SpecialFile as error:
            row.reject(RowRejected("broken_record", str(error)))
            continue
        except FileNotFoundError:
            continue
        if len(data) > MAX_TEXT_BYTES:
            row.reject(RowRejected("broken_record", f"{beside} has more than {MAX_TEXT_BYTES} bytes"))
        else:
            texts[name] = data
    return texts


ENDINGS = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)
FORMAT = Format("files", ENDINGS, ("images",), plan, read, unread=unread)
