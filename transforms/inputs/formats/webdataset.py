"""WebDataset tars: samples are consecutive members whose names agree up to the first dot of the file name."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from transforms import storage
from transforms.errors import RowRejected
from transforms.inputs.columns import IMAGE_EXTENSIONS, sample_schema
from transforms.inputs.fetch import too_large
from transforms.inputs.formats import tar
from transforms.inputs.formats.format import PEEKED_FILES, PEEKERS, Format, Found, Piece, Planned, PlanTask, by_slice
from transforms.inputs.request import InputSchema
from transforms.inputs.rows import Row, fill_sample
from transforms.inputs.uris import relative_to, stem
from transforms.inputs.values import MAX_TEXT_BYTES, TypeGuess, utf8
from transforms.ledger.types import Slice

MEMBER_NAME = re.compile(r"^((?:.*/)?[^./]+)\.([^/]*)$")
READ_BUFFER = 4 << 20
PEEK_BYTES = 1 << 20
PEEK_SAMPLES = 8

Wanted = Callable[[str], int]
"""From the extension of a member to the most bytes it may have to be read; 0 passes it over."""


@dataclass
class Sample:
    """Members of one sample by extension, in order: `sizes` of all, `data` of those that were wanted and not too large.

    `offset` is where the sample begins in the (unpacked) tar.
    """

    name: str
    number: int
    offset: int
    sizes: dict[str, int] = field(default_factory=dict)
    data: dict[str, bytes] = field(default_factory=dict)


class BrokenSamples(Exception):
    """The tar cannot be read on; `number` is the sample that the break takes away."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number

    def is_in(self, part: Slice) -> bool:
        """Whether the sample is one of the slice."""
        return part.start <= self.number and (part.stop is None or self.number < part.stop)


def plan(task: PlanTask) -> Planned:
    """Pieces cut by the number of samples, estimated from the first ones of a tar."""
    guess = TypeGuess()
    extensions: set[str] = set()
    usual = 0.0
    for found in task.inputs.files[:PEEKED_FILES]:
        seen, usual = peek(found.uri, guess)
        extensions |= seen
        if usual:
            break
    schema = task.schema or sample_schema(task.request, guess.schema(), extensions, task.first)
    large = [
        found.uri for found in task.files if _samples(found, usual) > task.rows_per_shard and not _is_packed(found)
    ]
    with ThreadPoolExecutor(PEEKERS) as pool:
        own = dict(zip(large, pool.map(lambda uri: peek(uri, TypeGuess())[1], large), strict=True))
    pieces: list[Piece] = []
    for found in task.files:
        source = found.source("webdataset")
        estimate = _samples(found, own.get(found.uri, usual))
        cuts = 1 if _is_packed(found) else max(1, math.ceil(estimate / task.rows_per_shard))
        for index in range(cuts):
            start = index * task.rows_per_shard
            stop = start + task.rows_per_shard if index < cuts - 1 else None
            rows = task.rows_per_shard if stop is not None else max(1, estimate - start)
            pieces.append(Piece(Slice(source, start, stop), rows))
    return pieces, schema


def _is_packed(found: Found) -> bool:
    """A gzipped tar stays whole: to get to its middle costs unpacking all that is before."""
    return found.uri.lower().endswith((".gz", ".tgz"))


def _samples(found: Found, sample_bytes: float) -> int:
    return math.ceil(found.info.size / sample_bytes) if sample_bytes else 1


def peek(uri: str, guess: TypeGuess) -> tuple[set[str], float]:
    """The extensions and the mean packed size of the first samples of a tar, about `PEEK_BYTES` of it; 0 without any.

    The fields of their json are added to `guess`.
    """
    extensions: set[str] = set()
    count = last = 0
    with storage.open_unpacked(uri, READ_BUFFER) as stream:
        try:
            for sample in samples(stream, 0, None, lambda extension: MAX_TEXT_BYTES if extension == "json" else 0):
                extensions |= sample.sizes.keys()
                if "json" in sample.data:
                    guess.add_json(sample.data["json"])
                count, last = sample.number + 1, sample.offset + sum(map(tar.packed_size, sample.sizes.values()))
                if last >= PEEK_BYTES and count >= PEEK_SAMPLES:
                    break
        except BrokenSamples:
            pass  # reading it makes that a rejected row
    return extensions, last / count if count else 0.0


def count(part: Slice, enough: int) -> int:
    rows = 0
    with storage.open_unpacked(part.source.uri, READ_BUFFER) as stream:
        try:
            for _ in samples(stream, part.start, part.stop, lambda extension: 0):
                rows += 1
                if rows >= enough:
                    return rows
        except BrokenSamples as broken:
            rows += broken.is_in(part)
    return rows


def read(part: Slice, schema: InputSchema, max_bytes: int, notices: Counter[str]) -> Iterator[Row]:
    """Samples [start, stop) of a tar, streamed."""
    uri = part.source.uri

    def wanted(extension: str) -> int:
        if extension in ("json", schema.caption):
            return MAX_TEXT_BYTES
        return max_bytes if _is_image(extension, schema) else 0

    with storage.open_unpacked(uri, READ_BUFFER) as stream:
        try:
            for sample in samples(stream, part.start, part.stop, wanted):
                yield _row(sample, uri, schema, max_bytes, notices)
        except BrokenSamples as broken:
            if broken.is_in(part):
                key = f"{stem(relative_to(uri, part.source.root))}-{broken.number:09d}"
                yield Row(key, uri, error=("broken_archive", f"sample {broken.number}: {broken}"))


def _is_image(extension: str, schema: InputSchema) -> bool:
    return extension == schema.image if schema.image else extension in IMAGE_EXTENSIONS


def _row(sample: Sample, uri: str, schema: InputSchema, max_bytes: int, notices: Counter[str]) -> Row:
    images = [name for name in sample.sizes if _is_image(name, schema)]
    row = Row(sample.name, f"{uri}#{sample.name}")
    if images:
        name = images[0]
        row.uri = f"{uri}#{sample.name}.{name}"
        if name in sample.data:
            row.payload["image"] = sample.data[name]
        else:
            row.reject(too_large(row.uri, sample.sizes[name], max_bytes))
        if len(images) > 1:
            notices[f"a sample has several images ({', '.join(images)}); the first was taken"] += 1
    else:
        row.reject(RowRejected("missing_image", f"no image among the members {', '.join(sample.sizes)}"))
    for member in ("json", schema.caption):
        if member in sample.sizes and member not in sample.data:
            size = sample.sizes[member]
            row.reject(RowRejected("broken_record", f"the {member} has {size} bytes, more than {MAX_TEXT_BYTES}"))
    texts = {member: data for member, data in sample.data.items() if member in ("json", schema.caption)}
    return fill_sample(row, texts, schema, notices)


def samples(stream: BinaryIO, start: int, stop: int | None, wanted: Wanted) -> Iterator[Sample]:
    """Samples [start, stop) in order; only the headers of those before `start` are read.

    A member whose extension the sample has already begins another sample of the same name: both are kept.
    Raises `BrokenSamples`. Before that, the last sample is yielded if all its members that were found are whole and
    none is missing that the sample before it has: half a sample would be an image that lost its caption.
    """
    current: Sample | None = None
    before: set[str] = set()
    following = 0
    try:
        for member in tar.members(stream):
            match = MEMBER_NAME.match(member.name.removeprefix("./"))
            if match is None:
                continue
            name, extension = utf8(match.group(1)), match.group(2).lower()
            if current is None or name != current.name or extension in current.sizes:
                if current is not None and current.number >= start:
                    yield current
                if following == stop:
                    return
                before = set(current.sizes) if current is not None else set()
                current = Sample(name, following, member.offset)
                following += 1
            current.sizes[extension] = member.size
            if current.number >= start and member.size <= wanted(extension):
                current.data[extension] = tar.content(stream, member)
            else:
                tar.pass_over(stream, member)
    except tar.CutMember as cut:
        raise BrokenSamples(following - 1, str(cut)) from cut
    except tar.NoEnd as error:  # some writers leave it out, so only half a sample tells that something is missing
        if current is not None and not before <= current.sizes.keys():
            raise BrokenSamples(current.number, str(error)) from error
    except tar.BrokenTar as error:
        if current is not None and not before <= current.sizes.keys():
            raise BrokenSamples(current.number, f"the tar is broken: {error}") from error
        if current is not None and current.number >= start:
            yield current
        raise BrokenSamples(following, f"the tar is broken: {error}") from error
    if current is not None and current.number >= start:
        yield current


FORMAT = Format("webdataset", (".tar", ".tar.gz", ".tgz"), ("images",), plan, partial(by_slice, read), count)
