"""Unpacks the pages of Parquet files a piece at a time, in all its codecs: Arrow unpacks Snappy and LZ4 only whole."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial

import pyarrow as pa

CHUNK = 1 << 20
WINDOW = 1 << 18  # bytes that Snappy and LZ4 refer back to: blocks are of 64 KiB
LONGEST_MATCH = 64 << 20  # of LZ4
LONGEST = 0xFE  # the first byte of Snappy's longest copies, of 64 bytes, which follow one another in flat images

Read = Callable[[int], bytes]
Write = Callable[[bytes], object]


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _copy(read: Read, write: Write) -> None:
    while data := read(CHUNK):
        write(data)


def _gunzip(read: Read, write: Write) -> None:
    unpacker = zlib.decompressobj(47)
    while data := unpacker.unconsumed_tail or read(CHUNK):
        write(unpacker.decompress(data, CHUNK))
    write(unpacker.flush())


class _Limited:
    """What `read` gives, as a file for Arrow."""

    closed = False

    def __init__(self, read: Read) -> None:
        self.read = read

    def close(self) -> None:
        self.closed = True


def _stream(codec: str, read: Read, write: Write) -> None:
    with pa.CompressedInputStream(pa.PythonFile(_Limited(read), "r"), codec) as stream:
        while data := stream.read(CHUNK):
            write(data)


def _unsnappy(read: Read, write: Write) -> None:
    """Raw Snappy, see its format_description.txt."""
    data = read(CHUNK)
    _, at = varint(data, 0)
    out = bytearray()  # the last bytes that were written, and then those that were not
    written = 0  # of `out`
    while True:
        if len(data) - at < 5:
            data, at = data[at:] + read(CHUNK), 0
            if not data:
                break
        tag = data[at]
        at += 1
        kind, size = tag & 3, (tag >> 2) + 1
        if kind == 0:
            if size > 60:
                extra = size - 60
                size, at = int.from_bytes(data[at : at + extra], "little") + 1, at + extra
            out += data[at : at + size]
            missing = size - (len(data) - at)
            at += size
            while missing > 0:
                data, at = read(CHUNK), 0
                if not data:
                    raise ValueError("the page ends early")
                out += data[:missing]
                at = min(missing, len(data))
                missing -= at
        else:
            if kind == 1:
                size, back, at = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | data[at], at + 1
            else:
                width = 2 if kind == 2 else 4
                back, at = int.from_bytes(data[at : at + width], "little"), at + width
            if not 0 < back <= len(out):
                raise ValueError("Snappy refers too far back")
            if tag == LONGEST:
                again = data[at - 3 : at]
                while size < CHUNK and data.startswith(again, at):
                    size, at = size + 64, at + 3
            begin = len(out) - back
            out += (out[begin : begin + size] * (size // back + 1))[:size]
        if len(out) - written > CHUNK:
            write(bytes(out[written:]))
            del out[: max(0, len(out) - WINDOW)]
            written = len(out)
    write(bytes(out[written:]))


def _unlz4(read: Read, write: Write) -> None:
    """A raw block of LZ4, see its lz4_Block_format.md."""
    data, at = read(CHUNK), 0
    out = bytearray()  # as above
    written = 0

    def long(size: int) -> int:
        """A size whose four bits are all set, with the bytes that follow."""
        nonlocal data, at
        while True:
            if at == len(data):
                data, at = read(CHUNK), 0
            byte = data[at]
            at += 1
            size += byte
            if byte < 255:
                return size

    def give(tolerated: int) -> None:
        nonlocal written
        if len(out) - written > tolerated:
            write(bytes(out[written:]))
            del out[: max(0, len(out) - WINDOW)]
            written = len(out)

    while True:
        if at == len(data):
            data, at = read(CHUNK), 0
            if not data:
                break
        token = data[at]
        at += 1
        size = token >> 4
        if size == 15:
            size = long(size)
        while size > len(data) - at:
            out += data[at:]
            size -= len(data) - at
            data, at = read(CHUNK), 0
            if not data:
                raise ValueError("the page ends early")
            give(CHUNK)
        out += data[at : at + size]
        at += size
        if len(data) - at < 8:
            data, at = data[at:] + read(CHUNK), 0
            if not data:
                break  # the last ones are literals alone
        back, size, at = data[at] | data[at + 1] << 8, (token & 15) + 4, at + 2
        if size == 19:
            size = long(size)
        if not 0 < back <= len(out) or size > LONGEST_MATCH:
            raise ValueError("LZ4 refers too far back, or to too much")
        begin = len(out) - back
        out += (out[begin : begin + size] * (size // back + 1))[:size]
        give(CHUNK)
    give(0)


UNPACK: dict[str, Callable[[Read, Write], None]] = {
    "UNCOMPRESSED": _copy,
    "GZIP": _gunzip,
    "ZSTD": partial(_stream, "zstd"),
    "BROTLI": partial(_stream, "brotli"),
    "SNAPPY": _unsnappy,
    "LZ4": _unlz4,
}
