"""Pixels -> the bytes and the name of an image file."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Mapping
from concurrent.futures import Executor

import numpy as np
import pyarrow as pa
from PIL import Image, PngImagePlugin

from transforms.batch import KEY, ROW, SAMPLE, images_of
from transforms.errors import UsageError
from transforms.outputs.layout import EXTENSIONS, Texts

QUALITY = 95  # of the lossy formats
PNG_LEVEL = 4  # of zlib: quicker than its usual 6, for files that are hardly larger
ROW_DIGITS = 7
SLUG_LENGTH = 60


class Compressor:
    """Compresses the `pixels` of a batch in a pool: the name and the bytes of each row's image."""

    def __init__(self, pool: Executor, image_format: str, texts: Texts | None) -> None:
        self._pool = pool
        self._format = image_format
        self._texts = texts

    def __call__(self, batch: pa.RecordBatch) -> list[tuple[str, bytes]]:
        pixels = images_of(batch)
        rows, keys = batch.column(ROW).to_pylist(), batch.column(KEY).to_pylist()
        samples = batch.column(SAMPLE).to_pylist() if SAMPLE in batch.schema.names else [0] * len(rows)
        names = [image_name(*which, self._format) for which in zip(rows, keys, samples, strict=True)]
        texts = self._texts(batch) if self._texts is not None else [{}] * len(rows)
        files = self._pool.map(lambda image, text: encode_image(image, self._format, text), pixels, texts)
        return list(zip(names, files, strict=True))


def check_format(image_format: str) -> None:
    """Raises `UsageError` for a format that is not written."""
    if image_format not in EXTENSIONS:
        raise UsageError(f"image_format {image_format!r} is unknown; choose one of {', '.join(EXTENSIONS)}")


def encode_image(pixels: np.ndarray, image_format: str, text: Mapping[str, str] | None = None) -> bytes:
    """uint8 [H, W, 3] -> a whole file; equal pixels and text give equal bytes under one version of Pillow.

    PNG is lossless; WebP and JPEG are of quality 95, JPEG with full colour resolution. `text` becomes text chunks of a
    PNG, in its order; the other formats cannot hold it. Raises `UsageError` for another format.
    """
    check_format(image_format)
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


def image_name(row: int, key: str, sample: int, image_format: str) -> str:
    """`0000017-red-apple_0.png`: unique within a shard by row and sample, readable by the key's slug.

    The name is plain ASCII with one dot and no separator for any key; the true key is in the table.
    """
    readable = slug(key)
    stem = f"{row:0{ROW_DIGITS}d}-{readable}" if readable else f"{row:0{ROW_DIGITS}d}"
    return f"{stem}_{sample}.{EXTENSIONS[image_format]}"


def slug(key: str) -> str:
    """At most 60 of `[a-z0-9_-]`: accents dropped, every other run of characters one hyphen; may be empty."""
    letters = (c for c in unicodedata.normalize("NFKD", key.lower()) if not unicodedata.combining(c))
    return re.sub(r"[^a-z0-9_-]+", "-", "".join(letters))[:SLUG_LENGTH].strip("-")


def row_of(name: str) -> int:
    """The row of a file's name that `image_name` gave; -1 for another name."""
    digits = re.match(r"\d+", name)
    return int(digits[0]) if digits else -1
