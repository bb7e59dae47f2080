"""`vqbeam export` inside a shard: first tables are sorted, then each output shard gathers its range of all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa

from transforms.batch import (
    CAPTION,
    CODES,
    ENCODING,
    KEY,
    PASS_PREFIX,
    VIEW,
    code_dtype,
    code_list,
    fixed_lists,
    to_rows,
)
from transforms.errors import RowFiltered, UsageError
from transforms.inputs.request import InputSchema
from transforms.inputs.sorted_runs import ORDER, PLACE_BITS, PLACES
from transforms.ledger.commit import MainObject
from transforms.outputs.layout import Columns, Sink, SinkTarget, find_token_layout
from transforms.outputs.table import TokenSink
from transforms.work.prepare import (
    Fetch,
    Pools,
    Prepared,
    Preparer,
    Refusal,
    full_batches,
    in_pool,
    prepare_codes,
    refusal,
)
from transforms.work.work import Work, output_columns

ORDER_VERSION = 1  # of what decides places and splits
WRITTEN = (KEY, CAPTION, ENCODING)
MOVED = ("duplicates",)  # the input may have it, too
DUPLICATES = "duplicates"  # list<string>: the keys of the rows that went because this one stays
DUPLICATE = "duplicate"  # the reason in the counts
BATCH = 1024  # rows
SORTED_GROUP = 256  # rows of a row group of a sorted table, of which each output shard reads a few


@dataclass(frozen=True)
class CodeGrid:
    """What the codes of the tables must fit."""

    codes_per_image: int
    codebook_size: int


@dataclass(frozen=True)
class Shuffle:
    """What decides the place of a row, its split and whether it stays. `value` is the column whose equal values are
    duplicates, if `unique`; it is the key otherwise. `splits` are names and shares. With `views` a key has several
    rows, told apart by their number: they go to one split, and each has its own place."""

    seed: int
    value: str = KEY
    unique: bool = False
    splits: tuple[tuple[str, float], ...] = ()
    views: bool = False

    def placed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with the columns of `ORDER`; `encoding` holds its codes."""
        codes = [row.tobytes() for row in np.ascontiguousarray(to_rows(batch.column(ENCODING)), dtype="<i4")]
        passing = sorted(name for name in batch.schema.names if name.startswith(PASS_PREFIX))
        others = {name: batch.column(name).to_pylist() for name in (KEY, CAPTION, *passing)}
        rows = [repr(list(row)).encode("utf-8", "surrogatepass") for row in zip(*others.values(), strict=True)]
        contents = _drawn(_begun(b"content"), codes, rows)[0]
        values = self._values(codes, others, contents)
        splits = self._splits(values)
        if self.views and self.value == KEY:
            numbers = others[PASS_PREFIX + VIEW]
            values = [value + f"\0{number}".encode() for value, number in zip(values, numbers, strict=True)]
        places = _drawn(_begun(b"place", str(self.seed).encode()), values)
        for field, column in zip(ORDER, (splits, *places, contents), strict=True):
            batch = batch.append_column(field.name, pa.array(column, field.type))
        return batch

    def _values(self, codes: list[bytes], others: Mapping[str, list[Any]], contents: np.ndarray) -> list[bytes]:
        """What decides the places of rows; of a row without a value all of it, since it is no duplicate of others."""
        name = _column(self.value)
        if self.value == ENCODING:
            return codes
        if name not in others:
            raise UsageError(f"{self.value} is not among the columns that pass through", "dedup")
        values = [value if isinstance(value, bytes) else _encoded(value) for value in others[name]]
        for row in [row for row, value in enumerate(others[name]) if value is None]:
            values[row] = _encoded(f"{others[KEY][row]}\0{contents[row]}")
        return values

    def _splits(self, values: list[bytes]) -> np.ndarray:
        """The numbers of the splits of rows, int [N]."""
        if not self.splits:
            return np.zeros(len(values), np.int32)
        ends = list(accumulate(share for _, share in self.splits))
        drawn = _drawn(_begun(b"split"), values)[0] / 2**PLACE_BITS
        return np.minimum(np.searchsorted(ends, drawn, side="right"), len(ends) - 1)


def _column(name: str) -> str:
    return name if name in (KEY, CAPTION) else PASS_PREFIX + name


def _encoded(value: object) -> bytes:
    return str(value).encode("utf-8", "surrogatepass")


def _begun(use: bytes, *parts: bytes) -> hashlib.blake2b:
    """The hash of what all rows have in common: other numbers are drawn for each use."""
    digest = hashlib.blake2b(digest_size=16, person=b"vqbeam " + use, salt=bytes([ORDER_VERSION]))
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest


def _drawn(begun: hashlib.blake2b, *columns: list[bytes]) -> np.ndarray:
    """Two numbers of `PLACE_BITS` bits for each row, int64 [2, N], that look drawn: others for other bytes."""
    digests = []
    for row in zip(*columns, strict=True):
        digest = begun.copy()
        digest.update(b"".join([piece for part in row for piece in (len(part).to_bytes(8, "little"), part)]))
        digests.append(digest.digest())
    whole = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
    return np.ascontiguousarray((whole >> np.uint64(64 - PLACE_BITS)).astype(np.int64).T)


@dataclass(frozen=True)
class PlaceStep:
    """`codes` -> `encoding` and the columns of `ORDER`."""

    shuffle: Shuffle
    spec: CodeGrid
    batch_size: int = BATCH

    def setup(self) -> None:
        """There is no model."""

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        codes = to_rows(batch.column(CODES)).astype(code_dtype(self.spec.codebook_size))
        return self.shuffle.placed(batch.drop_columns([CODES]).append_column(ENCODING, fixed_lists(codes)))


@dataclass(frozen=True)
class Placing(Work):
    """The common part: rows with their places; `after` sorts those of a shard."""

    shuffle: Shuffle
    spec: CodeGrid

    def preparer(self, schema: InputSchema, fetch: Fetch, pools: Pools) -> Preparer:
        return in_pool(pools.decode, partial(prepare_codes, spec=self.spec))

    def batches(self, parts: Iterable[Prepared], size: int) -> Iterator[pa.RecordBatch]:
        return full_batches(parts, size, CODES)

    def step(self, device: str) -> PlaceStep:
        return PlaceStep(self.shuffle, self.spec)

    def own(self, schema: InputSchema) -> Columns:
        codes = code_list(self.spec.codebook_size, self.spec.codes_per_image)
        return output_columns(WRITTEN, caption=schema.caption_type, encoding=codes)


class Sort(Placing):
    """A shard of the input, sorted."""

    def columns(self, schema: InputSchema) -> Columns:
        return [*self.own(schema), *((field.name, field.type) for field in ORDER)]

    def after(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch | Refusal]:
        yield from _cut(_sorted(batches), SORTED_GROUP)

    def sink(self, target: SinkTarget) -> Sink:
        return TokenSink(target, self.spec.codebook_size, SORTED_GROUP, dictionary=False)


@dataclass(frozen=True)
class Gather(Placing):
    """A shard of the output: ranges of sorted tables, merged, without duplicates."""

    layout: str = "parquet"

    @property
    def main(self) -> MainObject:
        return find_token_layout(self.layout).main

    def columns(self, schema: InputSchema) -> Columns:
        more = [(DUPLICATES, pa.list_(pa.string()))] if self.shuffle.unique else []
        instead = find_token_layout(self.layout).columns
        own = self.own(schema)
        if instead is not None:
            own = [*(column for column in own if column[0] != ENCODING), *instead]
        return [*own, *more]

    def after(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch | Refusal]:
        table = _sorted(batches)
        if table is not None and self.shuffle.unique:
            first, second = (table[name].to_numpy() for name in PLACES[:2])
            again = np.zeros(table.num_rows, bool)
            again[1:] = (first[1:] == first[:-1]) & (second[1:] == second[:-1])
            keys = table[KEY].to_pylist()
            gone: list[list[str]] = []
            for number, repeated in enumerate(again.tolist()):
                if repeated:
                    gone[-1].append(keys[number])
                else:
                    gone.append([])
            for batch in table.filter(pa.array(again)).to_batches():
                for row in range(batch.num_rows):
                    yield refusal(batch, row, "export", RowFiltered(DUPLICATE))
            table = table.filter(pa.array(~again)).append_column(DUPLICATES, pa.array(gone, pa.list_(pa.string())))
        yield from _cut(table)

    def sink(self, target: SinkTarget) -> Sink:
        return find_token_layout(self.layout).sink(target, self.spec.codebook_size)


def _sorted(batches: Iterator[pa.RecordBatch]) -> pa.Table | None:
    held = list(batches)
    if not held:
        return None
    return pa.Table.from_batches(held).sort_by([(name, "ascending") for name in ORDER.names])


def _cut(table: pa.Table | None, rows: int = BATCH) -> Iterator[pa.RecordBatch]:
    if table is not None:
        yield from table.combine_chunks().to_batches(max_chunksize=rows)
