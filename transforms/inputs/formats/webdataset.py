"""WebDataset tars: samples are consecutive members whose names agree up to the first dot of the file name."""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, cast

import pyarrow as pa

from transforms import storage
from transforms.errors import RowRejected, amount
from transforms.inputs.fetch import FetchOptions, too_large
from transforms.inputs.request import InputSchema
from transforms.inputs.rows import Row, batches
from transforms.inputs.samples import IMAGE_EXTENSIONS, MAX_TEXT_BYTES, fill_row, parse_json, utf8
from transforms.inputs.uris import relative_to, stem
from transforms.inputs.values import TypeGuess
from transforms.ledger.types import Slice

MEMBER_NAME = re.compile(r"^((?:.*/)?[^./]+)\.([^/]*)$")
META_MEMBER = re.compile(r"^__[^/]*__$")
READ_BUFFER = 4 << 20
PEEK_BYTES = 1 << 20
PEEK_SAMPLES = 8
GZIP_MAGIC = b"\x1f\x8b"
END_OF_TAR = tarfile.EOFHeaderError  # type: ignore[attr-defined]  # not in typeshed
NO_END = tarfile.EmptyHeaderError  # type: ignore[attr-defined]  # not in typeshed
BROKEN = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)

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


class BrokenArchive(Exception):
    """The tar cannot be read on; `number` is the sample that the break takes away."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


@dataclass(frozen=True)
class Peek:
    """What the first samples of a tar tell; `sample_bytes` is 0 where there is no sample."""

    fields: TypeGuess
    extensions: frozenset[str]
    sample_bytes: float


def open_tar(uri: str) -> BinaryIO:
    """The tar as one stream of bytes, unpacked where it is gzipped, whatever its name says."""
    file = storage.open_read(uri, buffer_size=READ_BUFFER)
    return cast(BinaryIO, gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == GZIP_MAGIC else file)


def peek(uri: str, guess: TypeGuess) -> Peek:
    """Read the first samples of a tar, about `PEEK_BYTES` of it; the fields of their json are added to `guess`."""
    extensions: set[str] = set()
    count = last = 0
    with open_tar(uri) as stream:
        try:
            for sample in samples(stream, 0, None, lambda extension: MAX_TEXT_BYTES if extension == "json" else 0):
                extensions |= sample.sizes.keys()
                if "json" in sample.data:
                    _add_fields(guess, sample.data["json"])
                count, last = sample.number + 1, sample.offset + _packed(sample)
                if last >= PEEK_BYTES and count >= PEEK_SAMPLES:
                    break
        except BrokenArchive:
            pass  # reading it makes that a rejected row
    return Peek(guess, frozenset(extensions), last / count if count else 0.0)


def _add_fields(guess: TypeGuess, data: bytes) -> None:
    try:
        guess.add(parse_json(data))
    except RowRejected:
        return  # reading it makes that a rejected row


def _packed(sample: Sample) -> int:
    """Bytes of a sample in its tar: a header each and contents in blocks of 512."""
    return sum(tarfile.BLOCKSIZE + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE for size in sample.sizes.values())


def read(part: Slice, schema: InputSchema, options: FetchOptions, notices: Counter[str]) -> Iterator[pa.RecordBatch]:
    """Canonical batches of samples [start, stop) of a tar, streamed."""
    return batches(_rows(part, schema, options, notices), schema)


def _rows(part: Slice, schema: InputSchema, options: FetchOptions, notices: Counter[str]) -> Iterator[Row]:
    uri = part.source.uri

    def wanted(extension: str) -> int:
        if extension in ("json", schema.caption):
            return MAX_TEXT_BYTES
        is_image = extension == schema.image if schema.image else extension in IMAGE_EXTENSIONS
        return options.max_bytes if is_image else 0

    with open_tar(uri) as stream:
        try:
            for sample in samples(stream, part.start, part.stop, wanted):
                yield _row(sample, uri, schema, options, notices)
        except BrokenArchive as broken:
            if part.start <= broken.number and (part.stop is None or broken.number < part.stop):
                key = f"{stem(relative_to(uri, part.source.root))}-{broken.number:09d}"
                yield Row(key, uri, error=("broken_archive", f"sample {broken.number}: {broken}"))


def _row(sample: Sample, uri: str, schema: InputSchema, options: FetchOptions, notices: Counter[str]) -> Row:
    images = [name for name in sample.sizes if (name == schema.image if schema.image else name in IMAGE_EXTENSIONS)]
    row = Row(sample.name, f"{uri}#{sample.name}")
    if images:
        name = images[0]
        row.uri = f"{uri}#{sample.name}.{name}"
        row.image = sample.data.get(name)
        if row.image is None:
            rejected = too_large(row.uri, sample.sizes[name], options)
            row.error = (rejected.code, rejected.message)
        if len(images) > 1:
            notices[f"a sample has several images ({', '.join(images)}); the first was taken"] += 1
    else:
        row.error = ("missing_image", f"no image among the members {', '.join(sample.sizes)}")
    for member in ("json", schema.caption):
        if member in sample.sizes and member not in sample.data and row.error is None:
            row.error = ("broken_record", f"the {member} has {sample.sizes[member]} bytes, more than {MAX_TEXT_BYTES}")
    texts = {member: data for member, data in sample.data.items() if member in ("json", schema.caption)}
    return fill_row(row, texts, schema, notices)


def samples(stream: BinaryIO, start: int, stop: int | None, wanted: Wanted) -> Iterator[Sample]:
    """Samples [start, stop) in order; of those before `start` only headers are looked at.

    A member whose extension the sample has already begins another sample of the same name: both are kept.
    Raises `BrokenArchive`; a sample is yielded first where all of its members that were found are whole, and none is
    missing that the sample before it has: half a sample would be an image that lost its caption.
    """
    current: Sample | None = None
    before: set[str] = set()
    following = 0
    try:
        for tar, info in _members(stream):
            match = MEMBER_NAME.match(info.name.removeprefix("./"))
            if match is None:
                continue
            name, extension = utf8(match.group(1)), match.group(2).lower()
            if current is None or name != current.name or extension in current.sizes:
                if current is not None and current.number >= start:
                    yield current
                if following == stop:
                    return
                before = set(current.sizes) if current is not None else set()
                current = Sample(name, following, info.offset)
                following += 1
            current.sizes[extension] = info.size
            if current.number >= start and info.size <= wanted(extension):
                current.data[extension] = _content(tar, info)
            else:
                _pass_over(tar, info)
    except _CutMember as cut:
        raise BrokenArchive(following - 1, str(cut)) from cut
    except _NoEnd as error:  # some writers leave it out, so only half a sample tells that something is missing
        if current is not None and not before <= current.sizes.keys():
            raise BrokenArchive(current.number, str(error)) from error
    except BROKEN as error:
        if current is not None and not before <= current.sizes.keys():
            raise BrokenArchive(current.number, f"the tar is broken: {error}") from error
        if current is not None and current.number >= start:
            yield current
        raise BrokenArchive(following, f"the tar is broken: {error}") from error
    if current is not None and current.number >= start:
        yield current


class _NoEnd(Exception):
    """The file ends where another member could begin, without the blocks that end a tar."""


class _CutMember(Exception):
    """The tar ends inside a member."""


def _members(stream: BinaryIO) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Regular members. Unlike `tarfile`, a header that is none ends in an error, not in silence."""
    tar = tarfile.TarFile(fileobj=stream, mode="r")
    tar.offset = 0
    while True:
        stream.seek(tar.offset)
        tar.members = []  # type: ignore[attr-defined]
        header = tar.offset
        try:
            info = tar.tarinfo.fromtarfile(tar)
        except END_OF_TAR:
            return
        except NO_END as error:
            if not header:
                raise tarfile.ReadError("the file is empty") from error
            raise _NoEnd("the tar has no end: its last blocks are missing") from error
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no valid member at byte {header}: {error}") from error
        if tar.offset <= header:
            raise tarfile.ReadError(f"the member at byte {header} has no possible size")
        if info.isreg() and not META_MEMBER.match(info.name):
            yield tar, info


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    stream = cast(BinaryIO, tar.fileobj)
    try:
        stream.seek(info.offset_data)
        data = stream.read(info.size)
    except BROKEN as error:
        raise _CutMember(f"the tar breaks off inside {utf8(info.name)}: {error}") from error
    if len(data) < info.size:
        raise _CutMember(f"the tar ends inside {utf8(info.name)}: {len(data):,} of {amount(info.size, 'bytes')} found")
    return data


def _pass_over(tar: tarfile.TarFile, info: tarfile.TarInfo) -> None:
    """Check that a member is whole without reading it."""
    stream = cast(BinaryIO, tar.fileobj)
    if not info.size:
        return
    try:
        stream.seek(info.offset_data + info.size - 1)
        whole = stream.read(1)
    except BROKEN as error:
        raise _CutMember(f"the tar breaks off inside {utf8(info.name)}: {error}") from error
    if not whole:
        raise _CutMember(f"the tar ends inside {utf8(info.name)}")
