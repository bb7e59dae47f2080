"""Files in order, packed: a folder of ten million images has to fit into memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import overload

from transforms import storage
from transforms.inputs.formats.format import Found

SEPARATOR = "\0"  # no name holds one


class FileList(Sequence[Found]):
    """A list of files that takes some 20 bytes each beside their names and versions, and folders once."""

    def __init__(self) -> None:
        self.folders: list[tuple[str, str]] = []  # with a slash at the end, and the root of its files
        self._numbers: dict[tuple[str, str], int] = {}
        self._folder = array("i")
        self._sizes = array("q")
        self._ends = array("q", [0])
        self._texts = bytearray()

    def append(self, found: Found) -> None:
        info = found.info
        folder, slash, name = info.uri.rpartition("/")
        home = (folder + slash, found.root)
        number = self._numbers.get(home)
        if number is None:
            number = self._numbers[home] = len(self.folders)
            self.folders.append(home)
        self._folder.append(number)
        self._sizes.append(info.size)
        self._texts += SEPARATOR.join((name, info.version, info.checksum)).encode()
        self._ends.append(len(self._texts))

    def extend(self, files: Sequence[Found]) -> None:
        for found in files:
            self.append(found)

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, index: int) -> Found: ...

    @overload
    def __getitem__(self, index: slice) -> list[Found]: ...

    def __getitem__(self, index: int | slice) -> Found | list[Found]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]  # negative ones, and IndexError
        text = self._texts[self._ends[number] : self._ends[number + 1]].decode()
        name, version, checksum = text.split(SEPARATOR)
        folder, root = self.folders[self._folder[number]]
        return Found(storage.FileInfo(folder + name, self._sizes[number], version, checksum), root)

    def __iter__(self) -> Iterator[Found]:
        for number in range(len(self)):
            yield self[number]
