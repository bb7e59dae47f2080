"""Hard and symbolic links of a tar: the members that they lead to, and their bytes."""

from __future__ import annotations

import gzip
import posixpath
from collections.abc import Iterator
from contextlib import suppress
from tarfile import TarInfo
from tempfile import SpooledTemporaryFile

from transforms import storage
from transforms.inputs.formats import tar
from transforms.inputs.values import shown, utf8

BUFFER = 1 << 18
MAX_LINKS = 1 << 16  # of one tar that are resolved
MAX_LINK_BYTES = 32 << 20  # of their names, and of the maps of sparse members
SPARSE_BYTES = 128  # of one part of such a map
MAX_HOPS = 16  # from link to link
COPIED_BYTES = 2 << 30  # of the linked members of a gzipped tar, on disk
COPIED_IN_MEMORY = 16 << 20


class LostLink(Exception):
    """A link leads to no bytes; the message says why."""


class Links:
    """Resolves the links of a tar. Free until the first is asked for, which has the tar's headers read two more times:
    for the links, then for what they lead to.

    A gzipped tar has no way back, so members that links lead to are copied to a temporary file. Memory and disk are
    bounded by the constants above; links beyond them are lost.
    """

    def __init__(self, uri: str, max_bytes: int) -> None:
        self._uri = uri
        self._max_bytes = max_bytes
        self._links: dict[str, str] | None = None
        self._targets: dict[str, list[TarInfo]] = {}
        self._copies: dict[int, int] = {}  # offset of a member in the tar -> offset in the copy

    def close(self) -> None:
        if self._links is not None:
            self._stream.close()
            self._copy.close()

    def find(self, link: TarInfo) -> TarInfo:
        """The regular member that a link leads to. Raises `LostLink`."""
        if self._links is None:
            self._links = {}
            self._stream = storage.open_unpacked(self._uri, BUFFER)
            self._copy = SpooledTemporaryFile(COPIED_IN_MEMORY)  # noqa: SIM115 - closed by close()
            self._find_links()
            self._find_targets(isinstance(self._stream, gzip.GzipFile))
        name = _target_name(link)
        for _ in range(MAX_HOPS):
            found = self._targets.get(name)
            if found:
                before = [member for member in found if member.offset < link.offset]
                return before[-1] if before else found[0]
            if name not in self._links:
                break
            name = self._links[name]
        kind = "symbolic" if link.issym() else "hard"
        full = len(self._links) >= MAX_LINKS or not self._room  # so not all were looked at
        why = "one of too many links" if full else "which is no file in the tar"
        raise LostLink(f"a {kind} link to {shown(utf8(link.linkname))}, {why}")

    def content(self, member: TarInfo) -> bytes:
        """The bytes of a member that `find` found. Raises `LostLink`."""
        if not isinstance(self._stream, gzip.GzipFile):
            try:
                return tar.content(self._stream, member)
            except tar.CutMember as cut:
                raise LostLink(f"a link, and {cut}") from cut
        if member.offset not in self._copies:
            raise LostLink(f"a link to {shown(utf8(member.name))}, one of too many in a gzipped tar: unpack it first")
        self._copy.seek(self._copies[member.offset])
        return self._copy.read(member.size)

    def _members(self) -> Iterator[TarInfo]:
        self._stream.seek(0)
        with suppress(tar.BrokenTar, tar.NoEnd):  # the reader of the tar rejects what follows
            yield from tar.members(self._stream)

    def _find_links(self) -> None:
        assert self._links is not None
        self._room = MAX_LINK_BYTES
        for member in self._members():
            if member.islnk() or member.issym():
                name, target = posixpath.normpath(member.name), _target_name(member)
                self._room = max(0, self._room - len(name) - len(target))
                if len(self._links) >= MAX_LINKS or not self._room:
                    return
                self._links[name] = target

    def _find_targets(self, copy: bool) -> None:
        assert self._links is not None
        wanted = set(self._links.values())
        copied = found = 0
        for member in self._members():
            name = posixpath.normpath(member.name)
            if name not in wanted or not member.isreg():
                continue
            found += 1
            self._room = max(0, self._room - SPARSE_BYTES * len(tar.pieces(member)))
            if found > MAX_LINKS or not self._room:
                return
            member.pax_headers = {}
            self._targets.setdefault(name, []).append(member)
            if copy and member.size <= min(self._max_bytes, COPIED_BYTES - copied):
                try:
                    data = tar.content(self._stream, member)
                except tar.CutMember:
                    return
                with storage.faults("copy the linked members of", self._uri, ()):
                    self._copy.seek(copied)
                    self._copy.write(data)
                self._copies[member.offset] = copied
                copied += len(data)


def _target_name(link: TarInfo) -> str:
    folder = posixpath.dirname(link.name) if link.issym() else ""
    return posixpath.normpath(posixpath.join(folder, link.linkname))
