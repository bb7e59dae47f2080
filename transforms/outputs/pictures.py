"""Decoded pixels -> the bytes and the name of a picture file. The last step of `decode` before writing."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Mapping

import numpy as np
from PIL import Image, PngImagePlugin

from transforms.errors import UsageError

EXTENSIONS = {"png": "png", "webp": "webp", "jpeg": "jpg"}  # of the image formats that we write

QUALITY = 95  # of the lossy formats
PNG_LEVEL = 4  # of zlib: quicker than its usual 6, for files that are hardly larger
ROW_DIGITS = 7
SLUG_LENGTH = 60


def encode_picture(pixels: np.ndarray, image_format: str, text: Mapping[str, str] | None = None) -> bytes:
    """uint8 [H, W, 3] -> a whole file; equal pixels and text give equal bytes under one version of Pillow.

    PNG is lossless; WebP and JPEG are of quality 95, JPEG with full colour resolution. `text` becomes text chunks of a
    PNG, in its order; the other formats have no place for it and go without. Raises `UsageError` for another format.
    """
    if image_format not in EXTENSIONS:
        raise UsageError(f"image format {image_format!r} is unknown; choose one of {', '.join(EXTENSIONS)}")
    image = Image.fromarray(np.ascontiguousarray(pixels))
    out = io.BytesIO()
    if image_format == "png":
        chunks = PngImagePlugin.PngInfo()
        for name, value in (text or {}).items():
            chunks.add_itxt(name, value.encode("utf-8", "replace").decode("utf-8"))
        image.save(out, "PNG", pnginfo=chunks, compress_level=PNG_LEVEL)
    elif image_format == "webp":
        image.save(out, "WEBP", quality=QUALITY, method=4)
    else:
        image.save(out, "JPEG", quality=QUALITY, subsampling=0)
    return out.getvalue()


def picture_name(row: int, key: str, sample: int, image_format: str) -> str:
    """`0000017-red-apple_0.png`: unique within a shard by row and sample, readable by the key's slug.

    Whatever the key holds, the name is plain ASCII with one dot and no separator; the true key is in the table.
    """
    readable = slug(key)
    stem = f"{row:0{ROW_DIGITS}d}-{readable}" if readable else f"{row:0{ROW_DIGITS}d}"
    return f"{stem}_{sample}.{EXTENSIONS[image_format]}"


def slug(key: str) -> str:
    """At most 60 of `[a-z0-9_-]`: accents dropped, every other run of characters one hyphen; may be empty."""
    letters = (c for c in unicodedata.normalize("NFKD", key.lower()) if not unicodedata.combining(c))
    return re.sub(r"[^a-z0-9_-]+", "-", "".join(letters))[:SLUG_LENGTH].strip("-")
