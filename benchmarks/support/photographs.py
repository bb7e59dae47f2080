"""Images with the statistics of photographs, made from a seed, in WebDataset tars and Parquet files to measure on."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

DISTINCT = 64  # images; larger sets repeat them under other keys
OCTAVES = (4, 8, 16, 32, 64, 128)  # cells a side of the noise; each octave half as strong as the one before
GRAIN = 4.0  # standard deviation of the noise of single pixels, of 255
CAPTION = "an image made of noise, for measuring"


def photograph(random: np.random.Generator, sides: tuple[int, int]) -> bytes:
    """One JPEG of `sides[0]` to `sides[1]` pixels a side."""
    width, height = (int(random.integers(sides[0], sides[1] + 1)) for _ in range(2))
    buffer = io.BytesIO()
    drawn(random, width, height).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def drawn(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """1/f noise in three channels, a few edges, some grain."""
    light = np.zeros((height, width, 3), np.float32)
    for strength, cells in enumerate(OCTAVES):
        coarse = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        smooth = coarse.resize((width, height), Image.Resampling.BICUBIC)
        light += (np.asarray(smooth, np.float32) - 127.5) / 2**strength
    for _ in range(6):
        left, top = int(random.integers(0, width)), int(random.integers(0, height))
        light[top : top + height // 4, left : left + width // 4] += random.normal(0, 60, 3)
    light += random.normal(0, GRAIN, light.shape)
    return Image.fromarray((light + 127.5).clip(0, 255).astype(np.uint8))


def photographs(count: int, sides: tuple[int, int], seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """`count` keys and JPEGs, of which at most `DISTINCT` differ."""
    random = np.random.default_rng(seed)
    distinct = [photograph(random, sides) for _ in range(min(count, DISTINCT))]
    return ((f"{number:08d}", data) for number, data in zip(range(count), itertools.cycle(distinct), strict=False))


def write_tar(path: Path, count: int, sides: tuple[int, int]) -> Path:
    """A WebDataset tar with `KEY.jpg` and `KEY.txt` for each image."""
    with tarfile.open(path, "w") as tar:
        for key, data in photographs(count, sides):
            for name, content in ((f"{key}.jpg", data), (f"{key}.txt", CAPTION.encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def write_parquet(path: Path, count: int, sides: tuple[int, int]) -> Path:
    """A Parquet file with `key`, `caption` and `image` (JPEG bytes), in one row group."""
    keys, images = zip(*photographs(count, sides), strict=True)
    table = pa.table({"key": keys, "caption": [CAPTION] * count, "image": pa.array(images, pa.binary())})
    # Neither a dictionary nor a compressor: they would find out that images repeat.
    pq.write_table(table, path, row_group_size=count, use_dictionary=False, compression="none")
    return path
