"""A small dataset in four shards, for tests of whole runs, and a look at what they leave."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.fixtures_images import encoded, scene
from tests.support.run_command import Outcome, encode

ROWS = 10  # of each file
SHARDS = 4


def picture(row: int) -> bytes:
    return encoded(scene(20 + row % 7, 20).point(lambda value, row=row: (value + 11 * row) % 256), "PNG")


def write_table(path: Path, first: int, rows: int = ROWS) -> None:
    """A Parquet file with `rows` pictures; every tenth is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = range(first, first + rows)
    images = [b"no image" if row % 10 == 9 else picture(row) for row in numbers]
    pq.write_table(
        pa.table({"key": [f"k{row}" for row in numbers], "image": images, "caption": [f"c {row}" for row in numbers]}),
        path,
    )


def write_tar(path: Path, first: int, rows: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for row in range(first, first + rows):
            for name, data in ((f"k{row}.png", picture(row)), (f"k{row}.txt", f"c {row}".encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def dataset(folder: Path, files: int = SHARDS) -> Path:
    for number in range(files):
        write_table(folder / f"{number}.parquet", number * ROWS)
    return folder


def encode_small(source: str | Path, output: str | Path, model: Path, *flags: str | Path) -> Outcome:
    """A shard a file."""
    return encode(source, output, model, "--rows_per_shard", str(ROWS), *flags)
