"""Images for the tests: a scene that no rotation maps onto itself, in any format, and PNGs written by hand."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def scene(width: int = 64, height: int = 64) -> Image.Image:
    """A smooth RGB gradient with a dark block in the upper left and a red one beneath it."""
    x = np.linspace(0, 1, width)[None, :, None]
    y = np.linspace(0, 1, height)[:, None, None]
    pixels = 60 + 150 * (x * np.array([1.0, 0.4, 0.1]) + y * np.array([0.0, 0.5, 0.9])) / 1.5
    pixels[height // 8 : height // 3, width // 8 : width // 3] = (20, 40, 80)
    pixels[height // 2 : 3 * height // 4, width // 8 : width // 3] = (220, 40, 30)
    return Image.fromarray(pixels.round().astype(np.uint8))


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """The bytes of an image file; `options` go to Pillow."""
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def png_by_hand(
    width: int, height: int, depth: int, colour: int, rows: bytes, chunks: tuple[tuple[bytes, bytes], ...] = ()
) -> bytes:
    """A PNG of any depth and colour type with any rows; each row begins with its filter byte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 arrays; 99 if they are equal."""
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))
