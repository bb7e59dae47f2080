"""The members of a tar, streamed: unlike `tarfile`, a tar that breaks off or is corrupt is an error, never silence.

Everything that leans on names of `tarfile` that are not documented is in this file.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from tarfile import TarInfo
from typing import BinaryIO

from transforms.errors import amount
from transforms.inputs.values import utf8

META_MEMBER = re.compile(r"^__[^/]*__$")
END_OF_TAR = tarfile.EOFHeaderError  # type: ignore[attr-defined]  # not in typeshed
NO_END = tarfile.EmptyHeaderError  # type: ignore[attr-defined]  # not in typeshed
BROKEN = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)


class BrokenTar(Exception):
    """No member can be read from here on."""


class CutMember(Exception):
    """The tar ends inside a member."""


class NoEnd(Exception):
    """The file ends where another member could begin, without the blocks that end a tar."""


def members(stream: BinaryIO) -> Iterator[TarInfo]:
    """Regular members in order. Raises `BrokenTar` and `NoEnd`."""
    try:
        tar = tarfile.TarFile(fileobj=stream, mode="r")
        tar.offset = 0
        while True:
            stream.seek(tar.offset)
            tar.members = []  # type: ignore[attr-defined]  # else it keeps every member
            header = tar.offset
            try:
                member = tar.tarinfo.fromtarfile(tar)
            except END_OF_TAR:
                return
            except NO_END as error:
                if not header:
                    raise BrokenTar("the file is empty") from error
                raise NoEnd("the tar has no end: its last blocks are missing") from error
            except tarfile.HeaderError as error:
                raise BrokenTar(f"no valid member at byte {header}: {error}") from error
            if tar.offset <= header:
                raise BrokenTar(f"the member at byte {header} has no possible size")
            if member.isreg() and not META_MEMBER.match(member.name):
                yield member
    except BROKEN as error:
        raise BrokenTar(str(error)) from error


def content(stream: BinaryIO, member: TarInfo) -> bytes:
    """The bytes of a member. Raises `CutMember`."""
    try:
        stream.seek(member.offset_data)
        data = stream.read(member.size)
    except BROKEN as error:
        raise CutMember(f"the tar breaks off inside {utf8(member.name)}: {error}") from error
    if len(data) < member.size:
        found = f"{len(data):,} of {amount(member.size, 'bytes')} found"
        raise CutMember(f"the tar ends inside {utf8(member.name)}: {found}")
    return data


def pass_over(stream: BinaryIO, member: TarInfo) -> None:
    """Checks that a member is whole without reading it. Raises `CutMember`."""
    if not member.size:
        return
    try:
        stream.seek(member.offset_data + member.size - 1)
        whole = stream.read(1)
    except BROKEN as error:
        raise CutMember(f"the tar breaks off inside {utf8(member.name)}: {error}") from error
    if not whole:
        raise CutMember(f"the tar ends inside {utf8(member.name)}")


def packed_size(size: int) -> int:
    """Bytes that a member of `size` bytes takes in a tar: a header, and its content in whole blocks."""
    return tarfile.BLOCKSIZE + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
