"""A TrueType font with a full square for each of some characters, and an empty one for all others."""

from __future__ import annotations

import struct
from itertools import accumulate
from pathlib import Path

EM = 1000


def write_font(path: Path, letters: str) -> Path:
    codes = sorted({*map(ord, letters)})
    box = _glyph([(50, 0, 900, 800), (100, 50, 850, 750)])
    glyphs = [box, *[_glyph([(50, 0, 900, 800)]) for _ in codes]]
    offsets = [0, *accumulate(map(len, glyphs))]
    groups = b"".join(struct.pack(">III", code, code, number + 1) for number, code in enumerate(codes))
    cmap = struct.pack(">HHHHI", 0, 1, 3, 10, 12) + struct.pack(">HHIII", 12, 0, 16 + len(groups), 0, len(codes))
    dates = struct.pack(">qq", 0, 0)
    tables = {
        b"cmap": cmap + groups,
        b"glyf": b"".join(glyphs),
        b"head": struct.pack(">IIIIHH", 0x10000, 0x10000, 0, 0x5F0F3CF5, 0, EM)
        + dates
        + struct.pack(">hhhhHHhhh", 0, 0, 900, 800, 0, 8, 2, 1, 0),
        b"hhea": struct.pack(">IhhhHhhhhhhhhhhhH", 0x10000, 800, -200, 0, EM, 0, 0, 900, 1, 0, 0, 0, 0, 0, 0, 0, 1),
        b"hmtx": struct.pack(">Hh", EM, 50) + struct.pack(">h", 50) * len(codes),
        b"loca": struct.pack(f">{len(offsets)}I", *offsets),
        b"maxp": struct.pack(">IHHHHHHHHHHHHHH", 0x10000, len(glyphs), 8, 2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0),
    }
    start = 12 + 16 * len(tables)
    directory, body = struct.pack(">IHHHH", 0x10000, len(tables), 0, 0, 0), b""
    for tag, data in tables.items():
        directory += struct.pack(">4sIII", tag, 0, start + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    path.write_bytes(directory + body)
    return path


def _glyph(squares: list[tuple[int, int, int, int]]) -> bytes:
    """Contours of four points, given by left, bottom, right and top; the second is a hole in the first."""
    points: list[tuple[int, int]] = []
    for number, (left, bottom, right, top) in enumerate(squares):
        corners = [(left, bottom), (left, top), (right, top), (right, bottom)]
        points += corners[::-1] if number else corners
    ends = struct.pack(f">{len(squares)}H", *[4 * number + 3 for number in range(len(squares))])
    data = struct.pack(">hhhhh", len(squares), 50, 0, 900, 800) + ends + struct.pack(">H", 0) + b"\x01" * len(points)
    last = (0, 0)
    xs, ys = b"", b""
    for x, y in points:
        xs, ys, last = xs + struct.pack(">h", x - last[0]), ys + struct.pack(">h", y - last[1]), (x, y)
    data += xs + ys
    return data + b"\0" * (-len(data) % 4)
