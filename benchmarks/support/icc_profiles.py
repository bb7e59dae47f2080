"""Small colour profiles, made from numbers: matrix profiles of known primaries, a grey curve, a table for inks."""

from __future__ import annotations

import struct

import numpy as np
from PIL import ImageCms

D50 = (0.9642, 1.0, 0.8249)


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*values)


def _gamma(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0)


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": b"desc\0\0\0\0\0\0\0\x02p\0".ljust(92, b"\0"), b"wtpt": _xyz(*D50)} | tags
    table, body, at = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for tag, data in tags.items():
        data = data.ljust(-(-len(data) // 4) * 4, b"\0")
        table += tag + struct.pack(">II", at + len(body), len(data))
        body += data
    head = struct.pack(">I", at + len(body)) + b"lcms\x02\x40\0\0" + kind + space + connection + bytes(12)
    head += b"acsp" + bytes(28) + _fixed(*D50)
    return head.ljust(128, b"\0") + table + body


def _rgb(red: tuple[float, ...], green: tuple[float, ...], blue: tuple[float, ...], gamma: float = 2.2) -> bytes:
    """Primaries as CIE XYZ under D50."""
    colours = {b"rXYZ": _xyz(*red), b"gXYZ": _xyz(*green), b"bXYZ": _xyz(*blue)}
    return _profile(b"mntr", b"RGB ", b"XYZ ", colours | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _gamma(gamma)))


DISPLAY_P3 = _rgb((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
ADOBE_RGB = _rgb((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
GREY_GAMMA = _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _gamma(1.4)})
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def ink_profile() -> bytes:
    """Four inks to Lab by a table of two levels an ink: lightness falls with ink, colours are weak."""
    levels = np.stack(np.meshgrid(*[[0.0, 1.0]] * 4, indexing="ij"), -1).reshape(-1, 4)
    cyan, magenta, yellow, black = levels.T
    light = np.clip(1 - 0.3 * (cyan + magenta + yellow) - 0.9 * black, 0, 1)
    lab = np.stack([light, 0.5 + 0.2 * (magenta - cyan), 0.5 + 0.2 * (yellow - cyan)], -1)
    table = (lab * 0xFF00).round().astype(">u2").tobytes()
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    linear = struct.pack(">2H", 0, 0xFFFF)
    lut = b"mft2\0\0\0\0" + struct.pack(">4B", 4, 3, 2, 0) + identity + struct.pack(">2H", 2, 2)
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut + 4 * linear + table + 3 * linear})
