"""Finds the keys that several rows of a job have, in whichever shards, from what its shards wrote.

Keys become 96 bits of BLAKE2b, which are spread by value over temporary files that are small enough to be sorted one by
one. Among a billion keys, two different ones have the same bits in one of 10^11 jobs.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms import storage
from transforms.batch import KEY
from transforms.errors import amount, brief
from transforms.ledger.folder import OutputFolder
from transforms.ledger.marks import read_mark
from transforms.ledger.types import shard_name
from transforms.outputs import tar
from transforms.outputs.table import TABLE

READERS = 8  # shards read at once
ROWS_READ = 4096  # of a shard at once
ROWS_SORTED = 1 << 20  # at once, in some 60 MB
MOST_FILES = 256
SHARDS_SHOWN = 3
HASH = np.dtype([("high", "<u8"), ("low", "<u4")])
ENTRY = np.dtype([("high", "<u8"), ("low", "<u4"), ("shard", "<u4"), ("rows", "<u4")])


@dataclass(frozen=True)
class RepeatedKeys:
    """`keys` keys that `rows` rows have together. `example` is the first of them, `shards` are those that have it."""

    keys: int
    rows: int
    example: str
    shards: tuple[int, ...]

    def __str__(self) -> str:
        names = [*map(shard_name, self.shards[:SHARDS_SHOWN])]
        if len(self.shards) > SHARDS_SHOWN:
            names.append(f"{len(self.shards) - SHARDS_SHOWN:,} more")
        listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
        occur = "occurs" if self.keys == 1 else "occur"
        return (
            f"{amount(self.keys, 'keys')} {occur} more than once ({amount(self.rows, 'rows')}), "
            f"such as {brief(self.example)!r} in {'shards' if len(names) > 1 else 'shard'} {listed}"
        )


def find_repeated_keys(
    output: str, shards: Collection[int], rows: int, scratch: str, *, number: str | None = None
) -> RepeatedKeys | None:
    """The keys that several rows of the input have, of those that became `rows` rows of these shards; None if there are
    none. `number`: a row became several, told apart by the numbers in this column, from 0.

    Memory is bounded: some 100 MB, and 250 MB for a billion rows. Temporary files in the folder `scratch` take 20 bytes
    a row.
    """
    files = [Path(scratch, f"keys-{number:03d}") for number in range(min(1 + rows // ROWS_SORTED, MOST_FILES))]
    _spread(output, shards, number, files)
    keys, repeated, first = 0, 0, np.empty(0, ENTRY)
    for path in files:
        groups = _repeated(np.fromfile(path, ENTRY))
        keys += len(groups)
        repeated += int(groups["rows"].sum())
        first = np.concatenate([first, groups])
        first = first[first["shard"] == first["shard"].min(initial=np.iinfo("<u4").max)]
    if not keys:
        return None
    example, high, low = _first_of(_keys(output, int(first["shard"][0]), number), first)
    entries = np.fromfile(files[high % len(files)], ENTRY)
    same = (entries["high"] == high) & (entries["low"] == low)
    return RepeatedKeys(keys, repeated, example, tuple(np.unique(entries["shard"][same]).tolist()))


def _spread(output: str, shards: Collection[int], number: str | None, paths: list[Path]) -> None:
    """Write an entry for each key of the shards into the file that its hash chooses."""
    lock = threading.Lock()
    with ExitStack() as stack:
        files = [stack.enter_context(open(path, "wb", buffering=1 << 16)) for path in paths]

        def add(shard: int) -> None:
            for keys in _keys(output, shard, number):
                counted = keys.value_counts()  # a key that all rows have would make one file of all
                entries = np.empty(len(counted), ENTRY)
                hashes = _hashes(counted.field("values"))
                entries["high"], entries["low"] = hashes["high"], hashes["low"]
                entries["shard"], entries["rows"] = shard, counted.field("counts").to_numpy()
                chosen = (entries["high"] % len(files)).astype(np.int64)
                ends = np.cumsum(np.bincount(chosen, minlength=len(files)))
                parts = np.split(entries[np.argsort(chosen, kind="stable")], ends[:-1])
                with lock:
                    for file, part in zip(files, parts, strict=True):
                        file.write(part.tobytes())

        with ThreadPoolExecutor(READERS) as pool:
            for _ in pool.map(add, shards):
                pass


def _repeated(entries: np.ndarray) -> np.ndarray:
    """An entry for each key with several rows, which has the first of its shards and all of its rows."""
    if not len(entries):
        return entries
    entries = entries[np.argsort(entries["high"])]
    if (_changes(entries, "high") != _changes(entries, "high", "low")).any():  # some by chance
        entries = entries[np.lexsort((entries["low"], entries["high"]))]
    starts = np.append(0, 1 + np.flatnonzero(_changes(entries, "high", "low")))
    rows = np.add.reduceat(entries["rows"], starts)
    groups = entries[starts[rows > 1]]
    groups["shard"] = np.minimum.reduceat(entries["shard"], starts)[rows > 1]
    groups["rows"] = rows[rows > 1]
    return groups


def _changes(entries: np.ndarray, *names: str) -> np.ndarray:
    """bool [N - 1]: whether an entry differs from the one before it."""
    return np.any([entries[name][1:] != entries[name][:-1] for name in names], axis=0)


def _first_of(batches: Iterator[pa.Array], entries: np.ndarray) -> tuple[str, int, int]:
    """The first key that is among `entries`, and its hash."""
    wanted = {(int(entry["high"]), int(entry["low"])) for entry in entries}
    for keys in batches:
        for number, hashed in enumerate(_hashes(keys).tolist()):
            if hashed in wanted:
                return keys[number].as_py().decode(), *hashed
    raise RuntimeError("a key that was read is gone")


def _hashes(keys: pa.Array) -> np.ndarray:
    joined = b"".join([blake2b(key, digest_size=HASH.itemsize).digest() for key in keys.to_pylist()])
    return np.frombuffer(joined, HASH)


def _keys(output: str, shard: int, number: str | None) -> Iterator[pa.Array]:
    """The keys of a shard as bytes, in batches, in order; of several images of a row, that of the first."""
    path = read_mark(OutputFolder(output).stats(shard_name(shard))).objects[0].path
    uri, names = storage.join(output, path), [KEY, number] if number else [KEY]
    for batch in (_of_table if path.endswith(TABLE.suffix) else _of_tar)(uri, names):
        if number:
            batch = batch.filter(pc.equal(batch[number], 0))
        yield batch[KEY].cast(pa.binary())


def _of_table(uri: str, names: list[str]) -> Iterator[pa.RecordBatch]:
    with storage.open_read(uri) as file:
        yield from pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False).iter_batches(ROWS_READ, columns=names)


def _of_tar(uri: str, names: list[str]) -> Iterator[pa.RecordBatch]:
    rows = ({name: row[name] for name in names} for row in tar.stream_rows(uri))
    while part := list(islice(rows, ROWS_READ)):
        yield pa.RecordBatch.from_pylist(part)
