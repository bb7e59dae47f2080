"""What an input format is: its name, its file endings, and how its files are planned, read and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from transforms.inputs.columns import table_schema
from transforms.inputs.file_list import FileList, Found
from transforms.inputs.hive import folder_columns
from transforms.inputs.passed_over import PassedOver
from transforms.inputs.provenance import unchanged
from transforms.inputs.request import InputRequest, InputSchema, Kind
from transforms.inputs.rows import Row, batches
from transforms.inputs.texts import TextsBeside, texts_beside
from transforms.ledger.types import Slice

PEEKED_FILES = 8  # at most, if the first leaves something open
PEEKERS = 16  # files looked into at once, to pay a store's latency once for so many


@dataclass(frozen=True)
class Inputs:
    """The files of a job in order: those that hold the rows, those found beside them, and the tables that describe a
    folder of images (metadata.csv). `passed` are files that are never read, whatever the format."""

    format: str
    files: Sequence[Found]
    beside: Sequence[Found]
    described: tuple[Found, ...] = ()
    passed: PassedOver = field(default_factory=PassedOver)

    @cached_property
    def texts(self) -> TextsBeside:
        """Which of the files `beside` are texts of images."""
        images = self.files if self.beside else ()
        return texts_beside((found.uri for found in images), (found.uri for found in self.beside))


@dataclass(frozen=True, slots=True)
class Piece:
    """A slice that is not cut further, and its rows: counted, or estimated if only reading it would tell."""

    slice: Slice
    rows: int


@dataclass(frozen=True)
class PlanTask:
    """What a format plans. If a plan is extended, `schema` is its schema and `known` are the URIs of its sources."""

    inputs: Inputs
    request: InputRequest
    rows_per_shard: int
    schema: InputSchema | None
    known: Container[str]

    @cached_property
    def files(self) -> Sequence[Found]:
        """The files that are not planned yet."""
        if not self.known:
            return self.inputs.files
        return FileList(found for found in self.inputs.files if found.uri not in self.known)

    @property
    def first(self) -> str:
        return self.inputs.files[0].uri

    def table_schema(self, columns: pa.Schema) -> InputSchema:
        if self.schema is not None:
            return self.schema
        folders = folder_columns((found.uri, found.root) for found in self.inputs.files)
        return table_schema(self.request, columns, self.first, folders)


Planned = tuple[Sequence[Piece], InputSchema]


@dataclass(frozen=True)
class Format:
    """One input format, registered in `formats/__init__.py`.

    `endings` are those of its files, in lower case; none for a format that is never inferred or asked for. `kinds` are
    the kinds of rows that it can hold. `plan` cuts the files of a job into pieces and fixes the schema. `read` yields
    the batches (`rows.batch_schema`) of consecutive slices of this format. `count` returns the rows of a slice as
    `read` gives them, rejected ones too, and may stop at its second argument; None if `plan` counts all rows. `unread`
    yields the files beside those with rows of which nothing is read, given the schema; None if all are such.
    """

    name: str
    endings: tuple[str, ...]
    kinds: tuple[Kind, ...]
    plan: Callable[[PlanTask], Planned]
    read: Callable[[Iterable[Slice], InputSchema, int, Counter[str]], Iterator[pa.RecordBatch]]
    count: Callable[[Slice, int, InputSchema], int] | None = None
    unread: Callable[[Inputs, InputSchema], Iterable[Found]] | None = None

    def matches(self, uri: str) -> bool:
        return uri.lower().endswith(self.endings)


def by_slice(
    read: Callable[[Slice, InputSchema, int, Counter[str]], Iterator[Row]],
    slices: Iterable[Slice],
    schema: InputSchema,
    max_bytes: int,
    notices: Counter[str],
) -> Iterator[pa.RecordBatch]:
    """`Format.read`, given a function that reads the rows of one slice; each source is checked before and after."""
    for part in slices:
        with unchanged(part.source, notices):
            yield from batches(read(part, schema, max_bytes, notices), schema)
