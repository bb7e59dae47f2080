"""The members of a tar, streamed: unlike `tarfile`, a tar that breaks off or is corrupt is an error, never silence.

Everything that leans on names of `tarfile` that are not documented is in this file.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from tarfile import TarInfo
from typing import BinaryIO, cast

from transforms.errors import amount, brief
from transforms.inputs.values import shown, utf8

META_MEMBER = re.compile(r"^__[^/]*__$")
END_OF_TAR = tarfile.EOFHeaderError  # type: ignore[attr-defined]  # not in typeshed
NO_END = tarfile.EmptyHeaderError  # type: ignore[attr-defined]  # not in typeshed
BROKEN = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)
NO_HEADER = (ValueError, OverflowError, RecursionError)  # from the fields of corrupt headers
MAX_HEADER_BYTES = 1 << 20  # of one member: long names, extended headers, maps of sparse members
MAX_TAR_BYTES = 1 << 43  # no file system seeks further
SCAN_BYTES = 1 << 18


class BrokenTar(Exception):
    """No member can be read from here on."""


class CutMember(Exception):
    """The tar ends inside a member."""


class NoEnd(Exception):
    """The file ends where another member could begin, without the blocks that end a tar."""


class _Headers:
    """The stream as `tarfile` reads headers from it: at most `MAX_HEADER_BYTES` for each member.

    It keeps count of its position, since `tell` of a buffered file asks the file below each time.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.left = MAX_HEADER_BYTES
        self.position = 0

    def tell(self) -> int:
        return self.position

    def seek(self, position: int) -> None:
        self.stream.seek(position)
        self.position = position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.left:
            raise BrokenTar(f"a member has more than {MAX_HEADER_BYTES:,} bytes of headers, or none that is possible")
        self.left -= size
        data = self.stream.read(size)
        self.position += len(data)
        return data


@dataclass
class Progress:
    """Where members are read from, and whether those read since are `plain`: what follows can be read without them."""

    begin: int = 0
    plain: bool = True


def members(stream: BinaryIO, read_on: bool = True, progress: Progress | None = None) -> Iterator[TarInfo]:
    """Members in order, without folders and `__meta__`. Raises `BrokenTar` and `NoEnd`.

    With `read_on`, a tar joined to the end of another is read, too.
    """
    progress = progress or Progress()
    try:
        headers = _Headers(stream)
        headers.seek(progress.begin)  # where `TarFile` reads a header as it opens
        tar = tarfile.TarFile(fileobj=cast(BinaryIO, headers), mode="r")
        tar.offset = progress.begin
        joined = False
        while True:
            headers.seek(tar.offset)
            tar.members = []  # type: ignore[attr-defined]  # else it keeps every member
            headers.left = MAX_HEADER_BYTES
            header = tar.offset
            try:
                member = tar.tarinfo.fromtarfile(tar)
            except END_OF_TAR:
                following = _after_zeros(stream, header) if read_on else None
                if following is None:
                    return
                tar.offset, joined, progress.plain = following, True, False
                tar.pax_headers = {}
                continue
            except NO_END as error:
                if not header:
                    raise BrokenTar("the file is empty") from error
                raise NoEnd("the tar has no end: its last blocks are missing") from error
            except tarfile.HeaderError as error:
                behind = ", behind the end of the tar" if joined else ""
                raise BrokenTar(f"no valid member at byte {header}{behind}: {error}") from error
            if not header < tar.offset <= MAX_TAR_BYTES or member.size < 0:
                raise BrokenTar(f"the member at byte {header} has no possible size")
            if tar.pax_headers and sum(map(len, (*tar.pax_headers, *tar.pax_headers.values()))) > MAX_HEADER_BYTES:
                raise BrokenTar(
                    f"the global headers before byte {tar.offset} have more than {MAX_HEADER_BYTES:,} bytes"
                )
            progress.plain &= not tar.pax_headers  # those are of all that follow
            if member.sparse is not None:
                _check_sparse(member, header, tar.offset)
            if not (member.isdir() or META_MEMBER.match(member.name)):
                yield member
    except BROKEN as error:
        raise BrokenTar(str(error)) from error
    except NO_HEADER as error:
        raise BrokenTar(f"no valid member at byte {tar.offset}: {shown(str(error))}") from error


def _after_zeros(stream: BinaryIO, offset: int) -> int | None:
    """The first block from `offset` on that is not all zeros; None if only zeros follow, as some writers pad tars."""
    stream.seek(offset)
    while chunk := stream.read(SCAN_BYTES):
        if chunk.count(0) < len(chunk):
            zeros = len(chunk) - len(chunk.lstrip(b"\0"))
            return offset + zeros // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        offset += len(chunk)
    return None


def _check_sparse(member: TarInfo, header: int, end: int) -> None:
    """Names a sparse member as GNU tar means it. Raises `BrokenTar` if its map leads out of the member."""
    member.name = member.pax_headers.get("GNU.sparse.name", member.name)
    last = packed = 0
    for offset, size in pieces(member):
        if offset < last or size < 0:
            break
        last, packed = offset + size, packed + size
    else:
        if last <= member.size and packed <= end - member.offset_data:
            return
    raise BrokenTar(f"the sparse member at byte {header} has no possible map of its holes")


def content(stream: BinaryIO, member: TarInfo) -> bytes:
    """The bytes of a member, with the holes of a sparse one. Raises `CutMember`."""
    if member.sparse is None:
        return _read(stream, member, member.size)
    packed = memoryview(_read(stream, member, _packed(member)))
    data = bytearray(member.size)
    at = 0
    for offset, size in pieces(member):
        data[offset : offset + size] = packed[at : at + size]
        at += size
    return bytes(data)


def pieces(member: TarInfo) -> list[tuple[int, int]]:
    """Offset and size of what the tar holds of a sparse member, in order; none of another."""
    return [(offset, size) for offset, size in cast("list[tuple[int, int]]", member.sparse or []) if size]


def _packed(member: TarInfo) -> int:
    """Bytes that the tar holds of a member's content."""
    return member.size if member.sparse is None else sum(size for _, size in pieces(member))


def _read(stream: BinaryIO, member: TarInfo, size: int) -> bytes:
    try:
        stream.seek(member.offset_data)
        data = stream.read(size)
    except BROKEN as error:
        raise CutMember(f"the tar breaks off inside {brief(utf8(member.name))}: {error}") from error
    if len(data) < size:
        found = f"{len(data):,} of {amount(size, 'bytes')} found"
        raise CutMember(f"the tar ends inside {brief(utf8(member.name))}: {found}")
    return data


def pass_over(stream: BinaryIO, member: TarInfo) -> None:
    """Checks that a member is whole without reading it. Raises `CutMember`."""
    size = _packed(member) if member.isreg() else 0
    if not size:
        return
    try:
        stream.seek(member.offset_data + size - 1)
        whole = stream.read(1)
    except BROKEN as error:
        raise CutMember(f"the tar breaks off inside {brief(utf8(member.name))}: {error}") from error
    if not whole:
        raise CutMember(f"the tar ends inside {brief(utf8(member.name))}")


def packed_size(size: int) -> int:
    """Bytes that a member of `size` bytes takes in a tar: a header, and its content in whole blocks."""
    return tarfile.BLOCKSIZE + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
