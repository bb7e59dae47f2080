"""Small tables of tokens, their export, and what it wrote."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.run_command import Outcome, run

ROWS = 100
SPLIT = ("--split", "train=0.8,val=0.2")


def row(number: int) -> dict[str, Any]:
    """Rows 2n and 2n + 1 have equal codes, and each ten a value in `site`."""
    return {
        "key": f"img.{number}",
        "caption": None if number % 9 == 0 else f"c {number}",
        "encoding": [number // 2 % 60] * 4 + [1, 2],
        "site": None if number >= 90 else f"s{number // 10}",
    }


SCHEMA = pa.schema(
    [("key", pa.string()), ("caption", pa.string()), ("encoding", pa.list_(pa.uint16(), 6)), ("site", pa.string())]
)


def write(folder: Path, numbers: list[int], size: int) -> Path:
    """Tables of `size` of these rows."""
    folder.mkdir(parents=True)
    for first in range(0, len(numbers), size):
        rows = [row(number) for number in numbers[first : first + size]]
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / f"{first:03d}.parquet", row_group_size=7)
    return folder


def export_words(source: Path) -> tuple[object, ...]:
    return "export", "--input", source, "--rows_per_shard", 30, "--shuffle", 5


def export(source: Path, output: Path, *flags: object) -> Outcome:
    return run(*export_words(source), *flags, output=output)


def rows_of(folder: Path) -> list[list[dict[str, Any]]]:
    """The rows of each shard."""
    return [pq.read_table(path).to_pylist() for path in sorted((folder / "data").iterdir())]


def numbers_of(shards: list[list[dict[str, Any]]]) -> list[int]:
    return [int(found["key"].removeprefix("img.")) for shard in shards for found in shard]


def hashes(folder: Path) -> dict[str, str]:
    """Of everything but the accounts."""
    paths = [path for path in folder.rglob("*") if path.is_file() and "_vqbeam" not in path.parts]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
