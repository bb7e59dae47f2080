"""Columns of bytes whose Parquet pages are larger than memory should hold: decoded a value at a time.

Writers close a page only after so many rows, so one of large images may have gigabytes, and Arrow holds it twice. Here
it is decompressed piece by piece into a temporary file. Anything unusual is `Unsupported`, and left to Arrow.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa

from transforms.inputs.formats.page_codecs import UNPACK, varint

LARGE = 64 << 20  # bytes of a page
IN_MEMORY = 4 << 20  # bytes of a page that needs no file
HEADER = 1 << 16  # bytes that hold the header of a page
ENCODINGS = {"PLAIN", "RLE", "RLE_DICTIONARY", "PLAIN_DICTIONARY", "BIT_PACKED"}
DATA, DICTIONARY, DATA_V2 = 0, 2, 3  # types of pages
PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY = 0, 2, 3, 8  # encodings
FAULTS = (IndexError, KeyError, TypeError, ValueError, OverflowError, zlib.error, pa.ArrowException)


class Unsupported(Exception):
    """The column cannot be read here; Arrow can, or says why not."""


class LargeColumn:
    """One column of one row group: `column` is its metadata, `max_level` its largest definition level."""

    def __init__(self, file: IO[bytes], column: Any, max_level: int) -> None:
        self._file = file
        self._column = column
        self._max_level = max_level
        self._dictionary: tuple[IO[bytes], np.ndarray] | None = None

    @classmethod
    def find(cls, file: IO[bytes], column: Any, max_level: int) -> LargeColumn | None:
        """The column, if its first pages are large and of a kind that can be read here."""
        can = column.compression in UNPACK and ENCODINGS.issuperset(column.encodings)
        if not can or column.total_uncompressed_size < LARGE:
            return None
        found = cls(file, column, max_level)
        try:
            for number, (header, _) in enumerate(found._pages()):
                if header[2] >= LARGE:
                    return found
                if number:
                    break
        except Unsupported:
            pass
        return None

    def values(self, start: int, stop: int) -> Iterator[bytes | None]:
        """Rows [start, stop) of the row group. Raises `Unsupported`."""
        row = 0
        dictionary: tuple[dict[int, Any], int] | None = None
        try:
            for header, offset in self._pages():
                if header[1] == DICTIONARY:
                    dictionary = header, offset
                    continue
                if header[1] not in (DATA, DATA_V2):
                    continue
                if row >= stop:
                    return
                about = header[5] if header[1] == DATA else header[8]
                if about[1] > self._column.num_values:
                    raise ValueError("the page has more values than its column")
                if row + about[1] > start:
                    encoding = about[2] if header[1] == DATA else about[4]
                    if encoding in (RLE_DICTIONARY, PLAIN_DICTIONARY) and dictionary and not self._dictionary:
                        self._dictionary = self._read_dictionary(*dictionary)
                    with self._decompressed(header, offset) as page:
                        yield from self._page_values(header, page, max(0, start - row), stop - row)
                row += about[1]
        except FAULTS as error:
            raise Unsupported from error

    def close(self) -> None:
        if self._dictionary is not None:
            self._dictionary[0].close()
            self._dictionary = None

    def _pages(self) -> Iterator[tuple[dict[int, Any], int]]:
        """The header of each page, and where its content begins."""
        at = self._column.data_page_offset
        if self._column.has_dictionary_page and self._column.dictionary_page_offset:
            at = min(at, self._column.dictionary_page_offset)
        end = at + self._column.total_compressed_size
        while at < end:
            self._file.seek(at)
            try:
                header, size = _struct(self._file.read(min(HEADER, end - at)), 0)
                content = int(header[3])
            except (IndexError, KeyError) as error:
                raise Unsupported from error
            yield header, at + size
            at += size + content

    def _decompressed(self, header: dict[int, Any], offset: int) -> IO[bytes]:
        """The content of a page as a temporary file, at its beginning."""
        self._file.seek(offset)
        left = int(header[3])

        def read(size: int) -> bytes:
            nonlocal left
            data = self._file.read(min(size, left))
            left -= len(data)
            return data

        page: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        codec, plain = self._column.compression, 0
        if header[1] == DATA_V2:
            plain = header[8].get(5, 0) + header[8].get(6, 0)
            page.write(read(plain))
            codec = codec if header[8].get(7, True) else "UNCOMPRESSED"

        def write(data: bytes) -> None:
            page.write(data)
            if page.tell() > header[2]:
                raise ValueError("the page is larger than its header says")

        UNPACK[codec](read, write)
        if page.tell() != header[2]:
            raise ValueError("the page has another size than its header says")
        page.seek(0)
        return page

    def _read_dictionary(self, header: dict[int, Any], offset: int) -> tuple[IO[bytes], np.ndarray]:
        """The dictionary as a file, and where in it each value begins and ends."""
        if header[7][1] > header[2] // 4:
            raise ValueError("the dictionary has more values than bytes")
        page = self._decompressed(header, offset)
        places = np.empty((header[7][1], 2), np.int64)
        at = 0
        for number in range(len(places)):
            page.seek(at)
            size = int.from_bytes(_exactly(page, 4), "little")
            places[number] = at + 4, at + 4 + size
            at += 4 + size
        if at != header[2]:
            raise ValueError("the dictionary has another size than its values")
        return page, places

    def _page_values(self, header: dict[int, Any], page: IO[bytes], start: int, stop: int) -> Iterator[bytes | None]:
        about = header[5] if header[1] == DATA else header[8]
        count, encoding = about[1], about[2] if header[1] == DATA else about[4]
        present = np.ones(count, bool)
        if header[1] == DATA and self._max_level:
            if about[3] != RLE:
                raise ValueError("definition levels are no runs")
            levels = _exactly(page, int.from_bytes(_exactly(page, 4), "little"))
            present = _runs(levels, self._max_level.bit_length(), count) == self._max_level
        elif header[1] == DATA_V2:
            levels = _exactly(page, about.get(5, 0) + about.get(6, 0))[about.get(6, 0) :]
            if self._max_level:
                present = _runs(levels, self._max_level.bit_length(), count) == self._max_level
        if encoding == PLAIN:
            for row in range(min(stop, count)):
                size = int.from_bytes(_exactly(page, 4), "little") if present[row] else 0
                if row < start:
                    page.seek(size, 1)
                else:
                    yield _exactly(page, size) if present[row] else None
            return
        if encoding not in (RLE_DICTIONARY, PLAIN_DICTIONARY) or self._dictionary is None:
            raise ValueError(f"values are encoded as {encoding}")
        dictionary, places = self._dictionary
        width = _exactly(page, 1)[0]
        indices = np.zeros(count, np.int64)
        indices[present] = _runs(page.read(), width, int(present.sum()))
        for row in range(start, min(stop, count)):
            if not present[row]:
                yield None
                continue
            begin, end = places[indices[row]].tolist()
            dictionary.seek(begin)
            yield _exactly(dictionary, end - begin)


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ValueError("the page ends early")
    return data


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """A struct of Thrift's compact protocol, by the numbers of its fields, and where it ends. Raises `IndexError`."""
    fields: dict[int, Any] = {}
    number = 0
    while (head := data[at]) != 0:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            zigzag, at = varint(data, at)
            number = (zigzag >> 1) ^ -(zigzag & 1)
        fields[number], at = (head & 15 == 1, at) if head & 15 in (1, 2) else _value(data, at, head & 15)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in (1, 2, 3):
        return data[at], at + 1
    if kind in (4, 5, 6):
        zigzag, at = varint(data, at)
        return (zigzag >> 1) ^ -(zigzag & 1), at
    if kind == 7:
        return data[at : at + 8], at + 8
    if kind == 8:
        size, at = varint(data, at)
        return data[at : at + size], at + size
    if kind in (9, 10):
        size, inner = data[at] >> 4, data[at] & 15
        at += 1
        if size == 15:
            size, at = varint(data, at)
        items = []
        for _ in range(size):
            item, at = _value(data, at, inner)
            items.append(item)
        return items, at
    if kind == 12:
        return _struct(data, at)
    raise IndexError(f"no type {kind} in the header of a page")


def _runs(data: bytes, width: int, count: int) -> np.ndarray:
    """int64 [count] from Parquet's mix of runs and packed groups of eight numbers of `width` bits."""
    if width == 0:
        return np.zeros(count, np.int64)
    parts: list[np.ndarray] = []
    at = found = 0
    while found < count:
        head, at = varint(data, at)
        if head & 1:
            size = (head >> 1) * width
            bits = np.unpackbits(np.frombuffer(data[at : at + size], np.uint8), bitorder="little")
            groups = bits[: len(bits) // width * width].reshape(-1, width)
            parts.append(groups.astype(np.int64) @ (1 << np.arange(width, dtype=np.int64)))
        else:
            size = (width + 7) // 8
            parts.append(np.full(min(head >> 1, count), int.from_bytes(data[at : at + size], "little"), np.int64))
        at += size
        found += len(parts[-1])
        if not len(parts[-1]):
            raise ValueError("an empty run")
    return np.concatenate(parts)[:count] if parts else np.zeros(0, np.int64)
