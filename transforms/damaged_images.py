"""Images that Pillow refuses although all their pixels are there: PNGs with large or damaged texts, JPEGs without end.

Each function gives bytes that Pillow reads, and what is to be told.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXEL_CHUNKS = {b"tRNS", b"acTL", b"fcTL", b"fdAT"}  # beside the critical ones, whose names begin with a capital
READ_BY_PILLOW = 1 << 20  # bytes of an unpacked text or profile
MOST_TEXT = 16 << 20  # bytes of all texts and profiles of an image
MOST_UNPACKED = 4 << 20  # bytes of a profile or of XMP that Pillow does not read
XMP = b"XML:com.adobe.xmp"  # may say which side is up
DAMAGED_CHUNK = "a damaged chunk of a PNG, which holds no pixels, was ignored"
LARGE_CHUNK = "a large text of a PNG was passed over"
NO_END = "a JPEG has no end marker, but all its pixels"

JPEG_END = b"\xff\xd9"
FILLS = (b"\x55" * 64, b"\xaa" * 64)  # opposite bits: what lacks a single bit cannot come out equal with both
NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # within the data of a scan: neither stuffing nor a restart
ALL_BANDS = (1 << 64) - 1


@dataclass
class ReadablePng:
    """A PNG without what Pillow would fail at; `info` has the profile and XMP that are larger than Pillow reads."""

    data: bytes
    info: dict[str, bytes | str] = field(default_factory=dict)
    notices: set[str] = field(default_factory=set)


def readable_png(data: bytes) -> ReadablePng:
    """The PNG without large texts and without damaged chunks.

    Chunks that decide pixels stay as they are, so that damage in them is found.
    """
    parts = [PNG_SIGNATURE]
    found = ReadablePng(b"")
    texts = 0
    for name, content, whole in _chunks(data):
        if not (name[:1].isupper() or name in PIXEL_CHUNKS):
            if zlib.crc32(content, zlib.crc32(name)).to_bytes(4, "big") != whole[len(content) + 8 :]:
                found.notices.add(DAMAGED_CHUNK)
                continue
            if name in UNPACKED:
                text = UNPACKED[name](content) if texts <= MOST_TEXT else b""  # unpacking takes time, too
                texts += len(text)
                if len(text) > READ_BY_PILLOW or texts > MOST_TEXT:
                    if name == b"iCCP" and text:
                        found.info["icc_profile"] = text
                        continue
                    found.notices.add(LARGE_CHUNK)
                    if content.startswith(XMP + b"\0"):
                        found.info[XMP.decode()] = text[:MOST_UNPACKED].decode("utf-8", "replace")
                    continue
        parts.append(whole)
    found.data = b"".join(parts)
    return found


def has_damaged_pixels(data: bytes) -> bool:
    """Whether a whole chunk of pixels of a PNG has another checksum than it says."""
    view = memoryview(data)
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")
        stated = int.from_bytes(view[end - 4 : end], "big")
        if view[at + 4 : at + 8] == b"IDAT" and end <= len(data) and zlib.crc32(view[at + 4 : end - 4]) != stated:
            return True
        at = end
    return False


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, content, and the whole of each chunk; what cannot be one comes last as it is."""
    at = len(PNG_SIGNATURE)
    while at < len(data):
        if at + 8 > len(data):
            yield b"IEND", b"", data[at:]
            return
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        yield name, data[at + 8 : at + 8 + length], data[at:end]
        if name == b"IEND":
            return
        at = end


def _unpacked(packed: bytes) -> bytes:
    """At most one byte more than `MOST_UNPACKED` of what zlib packed; none if it is damaged."""
    try:
        return zlib.decompressobj().decompress(packed, MOST_UNPACKED + 1)
    except zlib.error:
        return b""


def _international(content: bytes) -> bytes:
    """The text of iTXt: keyword, 0, whether it is packed, method, language, 0, translated keyword, 0, text."""
    _, _, rest = content.partition(b"\0")
    _, _, after_language = rest[2:].partition(b"\0")
    _, _, text = after_language.partition(b"\0")
    return _unpacked(text) if rest[:1] == b"\1" else text


def _after_keyword(content: bytes) -> bytes:
    """What zTXt and iCCP hold: keyword, 0, method, packed."""
    return _unpacked(content.partition(b"\0")[2][1:])


UNPACKED: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"tEXt": bytes,
    b"zTXt": _after_keyword,
    b"iCCP": _after_keyword,
    b"iTXt": _international,
}


def completed_jpegs(data: bytes) -> list[bytes]:
    """A JPEG whose end marker is missing, completed in ways that decode alike only if no bit of its pixels is missing.

    Empty if the end marker is there, or a scan is missing.
    """
    if data.endswith(JPEG_END):
        return []
    data = data.removesuffix(b"\xff")
    return [data + fill + JPEG_END for fill in (b"", *FILLS)] if _has_all_scans(data) else []


def _has_all_scans(data: bytes) -> bool:
    """Whether scans for every band of every component begin, to the last bit."""
    missing: dict[int, int] = {}  # component -> bands whose last bits are not there
    at = 2
    while 0 <= at <= len(data) - 4 and data[at] == 0xFF:
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        at += 2 + length
        if kind in (0xC0, 0xC1, 0xC2) and len(body) >= 6 + 3 * body[5]:
            missing = {body[6 + 3 * i]: ALL_BANDS for i in range(body[5])}
        elif kind == 0xDA and len(body) >= 4 + 2 * body[0]:
            first, last, low = body[-3], body[-2], body[-1] & 15
            bands = sum(1 << band for band in range(first, min(last, 63) + 1))
            for component in body[1 : 1 + 2 * body[0] : 2]:
                if low == 0:
                    missing[component] = missing.get(component, 0) & ~bands
            found = NEXT_MARKER.search(data, at)
            at = found.start() if found else len(data)
    return bool(missing) and not any(missing.values())
