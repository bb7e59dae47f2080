"""A small dataset in four shards, and `vqbeam encode` of it, for tests of whole runs."""

from __future__ import annotations

from pathlib import Path

from tests.support.images import encoded, scene
from tests.support.make_inputs import folder, table, tar_of
from tests.support.run_command import Outcome, encode

ROWS = 10  # of each file
SHARDS = 4


def png(row: int) -> bytes:
    return encoded(scene(20 + row % 7, 20).point(lambda value, row=row: (value + 11 * row) % 256), "PNG")


def write_table(path: Path, first: int, rows: int = ROWS) -> None:
    """A Parquet file of `rows` rows; every tenth holds no image."""
    numbers = range(first, first + rows)
    images = [b"no image" if row % 10 == 9 else png(row) for row in numbers]
    columns = {"key": [f"k{row}" for row in numbers], "image": images, "caption": [f"c {row}" for row in numbers]}
    folder(path.parent, {path.name: table(columns)})


def write_tar(path: Path, first: int, rows: int) -> None:
    numbers = range(first, first + rows)
    members = [member for row in numbers for member in ((f"k{row}.png", png(row)), (f"k{row}.txt", f"c {row}"))]
    folder(path.parent, {path.name: tar_of(members)})


def dataset(source: Path, files: int = SHARDS) -> Path:
    for number in range(files):
        write_table(source / f"{number}.parquet", number * ROWS)
    return source


def encode_small(source: str | Path, output: str | Path, model: Path, *flags: str | Path) -> Outcome:
    """`vqbeam encode`, a shard for each file."""
    return encode(source, output, model, "--rows_per_shard", str(ROWS), *flags)
