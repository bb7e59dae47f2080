"""Captioned images as rows, and rows as files: WebDataset tars and Parquet."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from examples.emoji.captions import caption
from examples.emoji.combinations import BACKGROUNDS
from examples.emoji.compose import canonical, compose_images
from examples.emoji.glyphs import GlyphSet

CHUNK = 256  # images composed at once
ROWS_PER_GROUP = 512
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("caption", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("glyph", pa.string()),
        ("background", pa.string()),
        ("split", pa.string()),
    ]
)


@dataclass(frozen=True)
class Sample:
    """One captioned image; `glyph` is a code point in hexadecimal, `split` "train" or "held_out"."""

    key: str
    caption: str
    png: bytes
    glyph: str
    background: str
    split: str


def png_bytes(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] -> a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def compose(glyphs: GlyphSet, pairs: np.ndarray, splits: list[str]) -> Iterator[Sample]:
    """The canonical image of each pair of glyph and background, int64 [M, 2], in order."""
    names = list(BACKGROUNDS)
    for start in range(0, len(pairs), CHUNK):
        part = pairs[start : start + CHUNK]
        images, _ = compose_images(glyphs, part, canonical(len(part)))
        for (g, b), image, split in zip(part, images, splits[start : start + CHUNK], strict=True):
            yield Sample(
                key=f"{glyphs.keys[g]}-{names[b]}",
                caption=caption(glyphs.names[g], names[b]),
                png=png_bytes(image),
                glyph=glyphs.keys[g],
                background=names[b],
                split=split,
            )


def write_tar(samples: Iterable[Sample], path: Path) -> None:
    """One WebDataset shard: KEY.png, KEY.txt, KEY.json for each sample. Same samples, same bytes."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            about = {"glyph": sample.glyph, "background": sample.background, "split": sample.split}
            members = {"png": sample.png, "txt": sample.caption.encode(), "json": json.dumps(about).encode()}
            for extension, data in members.items():
                member = tarfile.TarInfo(f"{sample.key}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def write_parquet(samples: Iterable[Sample], path: Path) -> None:
    """One Parquet file with an `image` column as Hugging Face datasets has it ({bytes, path})."""
    rows = [
        {
            "key": sample.key,
            "caption": sample.caption,
            "image": {"bytes": sample.png, "path": f"{sample.key}.png"},
            "glyph": sample.glyph,
            "background": sample.background,
            "split": sample.split,
        }
        for sample in samples
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, compression="zstd", row_group_size=ROWS_PER_GROUP)
