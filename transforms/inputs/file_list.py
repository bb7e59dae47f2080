"""Files in order, packed: a folder of ten million images has to fit into memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from transforms import storage
from transforms.inputs.provenance import IMAGE_FILES
from transforms.ledger.types import Source
from transforms.sequences import MadeOnDemand

SEPARATOR = "\0"  # no name holds one
BLOCK = 4096  # files packed together
CODEC = "zstd"


@dataclass(frozen=True)
class Found:
    """A file of the input, and the folder that keys made from its path are relative to."""

    info: storage.FileInfo
    root: str

    @property
    def uri(self) -> str:
        return self.info.uri

    def source(self, format: str, rows: int | None = None) -> Source:
        checksum = self.info.checksum
        if not checksum and format != IMAGE_FILES and storage.is_local(self.uri):
            checksum = storage.sample(self.uri)
        return Source(self.uri, format, self.info.size, self.info.version, self.root, rows, checksum)


class Packed:
    """Texts without NUL, compressed."""

    def __init__(self, texts: Iterable[str]) -> None:
        data = SEPARATOR.join(texts).encode()
        self._size = len(data)
        self._data = pa.compress(data, CODEC, asbytes=True)

    def unpack(self) -> list[str]:
        return str(pa.decompress(self._data, self._size, CODEC, asbytes=True), "utf-8").split(SEPARATOR)


class FileList(MadeOnDemand[Found]):
    """A list of files that takes some 10 to 30 bytes each, and their folders once.

    It is quick to read from one end to the other; `is_sorted` by URI, if files have been added so.
    """

    def __init__(self, files: Iterable[Found] = ()) -> None:
        self.folders: list[tuple[str, str]] = []  # with a slash at the end, and the root of its files
        self.is_sorted = True
        self._numbers: dict[tuple[str, str], int] = {}
        self._blocks: deque[Packed] = deque()
        self._columns: tuple[list[str], ...] = ([], [], [], [], [])  # of files that are not packed yet
        self._unpacked: tuple[int, list[str]] | None = None  # the block that was looked at last
        self._last = ""
        self.extend(files)

    def append(self, found: Found) -> None:
        info = found.info
        folder, slash, name = info.uri.rpartition("/")
        home = (folder + slash, found.root)
        number = self._numbers.get(home)
        if number is None:
            number = self._numbers[home] = len(self.folders)
            self.folders.append(home)
        if info.uri < self._last:
            self.is_sorted = False
        self._last = info.uri
        values = (name, str(number), str(info.size), info.version, info.checksum)
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        if len(self._columns[0]) == BLOCK:
            self._blocks.append(Packed(chain.from_iterable(self._columns)))
            for column in self._columns:
                column.clear()

    def extend(self, files: Iterable[Found]) -> None:
        for found in files:
            self.append(found)

    def __len__(self) -> int:
        return BLOCK * len(self._blocks) + len(self._columns[0])

    def make(self, number: int) -> Found:
        block, place = divmod(number, BLOCK)
        if block == len(self._blocks):
            return self._found([column[place] for column in self._columns])
        if self._unpacked is None or self._unpacked[0] != block:
            self._unpacked = block, self._blocks[block].unpack()
        return self._found(self._unpacked[1][place::BLOCK])

    def __iter__(self) -> Iterator[Found]:
        for block in self._blocks:
            yield from self._files(block)
        yield from map(self._found, zip(*self._columns, strict=True))

    def drain(self) -> Iterator[Found]:
        """The files, each of which leaves the list before it is given."""
        while self._blocks:
            yield from self._files(self._blocks.popleft())
        columns, self._columns = self._columns, ([], [], [], [], [])
        yield from map(self._found, zip(*columns, strict=True))

    def _files(self, block: Packed) -> Iterator[Found]:
        texts = block.unpack()
        return map(
            self._found, zip(*(texts[start : start + BLOCK] for start in range(0, len(texts), BLOCK)), strict=True)
        )

    def _found(self, values: Sequence[str]) -> Found:
        name, number, size, version, checksum = values
        folder, root = self.folders[int(number)]
        return Found(storage.FileInfo(folder + name, int(size), version, checksum), root)
