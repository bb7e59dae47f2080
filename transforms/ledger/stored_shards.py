"""The shards and sources of a stored plan, read a row group at a time: a plan may hold millions of slices."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from heapq import merge
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms import storage
from transforms.errors import OutputDamaged
from transforms.ledger.folder import OutputFolder
from transforms.ledger.plan import RESTORE, ROW_GROUP, Plan, load_plan
from transforms.ledger.types import Shard, Slice, Source, shard_name
from transforms.sequences import MadeOnDemand

SLICES = 1024  # made Python's at once
MERGED = 16  # segments read side by side


class StoredShards(MadeOnDemand[Shard]):
    """The shards of a stored plan, of which a row group is held. One at a time, a row group after another is read once;
    threads may share it."""

    def __init__(self, output: str, plan: Plan) -> None:
        self._output = output
        self._plan = plan
        self._first = [segment.first_shard for segment in plan.segments]
        self._lock = threading.Lock()
        self._open: dict[int, _Segment] = {}

    def __len__(self) -> int:
        return self._plan.shards

    def make(self, number: int) -> Shard:
        segment = bisect_right(self._first, number) - 1
        with self._lock:
            try:
                if segment not in self._open:
                    self._open[segment] = _Segment(self._output, segment)
                (shard,) = self._open[segment].shards(number, number + 1)
            except BaseException:
                self._open.pop(segment, None)  # a store that failed may not go on with this file
                raise
        return shard

    def __iter__(self) -> Iterator[Shard]:
        return _read_shards(self._output, self._plan, 0, self._plan.shards)


def load_shard(output: str, index: int) -> Shard:
    """One shard of the stored plan. Raises `OutputDamaged` if the plan is gone or lacks it."""
    return ShardReader(output).shard(index)


class ShardReader:
    """The shards of the plan in an output folder, for a process that does many; threads may share it."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._lock = threading.Lock()
        self._shards: Sequence[Shard] = ()

    def shard(self, index: int) -> Shard:
        """A shard. Raises `OutputDamaged` if the plan is gone or lacks it."""
        with self._lock:
            if index >= len(self._shards):  # none is read yet, or it was extended since
                plan = load_plan(self._output)
                self._shards = () if plan is None else StoredShards(self._output, plan)
            shards = self._shards
        if index >= len(shards):
            name = shard_name(index)
            raise OutputDamaged(f"{self._output}: the stored plan is gone, or has no shard {name} any more")
        return shards[index]


def _read_shards(output: str, plan: Plan, first: int, stop: int) -> Iterator[Shard]:
    for number, segment in enumerate(plan.segments):
        if segment.first_shard < stop and first < segment.first_shard + segment.shards:
            yield from _Segment(output, number).shards(first, stop)


class _Segment:
    """A stored segment of a plan, of which a row group is held. Raises `OutputDamaged` if it cannot be read."""

    def __init__(self, output: str, number: int) -> None:
        self._uri = OutputFolder(output).shards(number)
        with self._readable():
            self._file = pq.ParquetFile(storage.open_read(self._uri))
            groups = map(self._file.metadata.row_group, range(self._file.num_row_groups))
            held = [group.column(0).statistics for group in groups]  # of the numbers of the shards
            self._bounds = [(one.min, one.max) for one in held]
        self._read = lru_cache(maxsize=1)(self._group)

    def shards(self, first: int, stop: int) -> Iterator[Shard]:
        """The shards [first, stop) that it holds, in order."""
        for index, parts in groupby(self._slices(first, stop), key=itemgetter(0)):
            yield Shard(index, tuple(part for _, part in parts))

    def batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of all its slices."""
        with self._readable():
            yield from self._file.iter_batches(ROW_GROUP, columns=names)

    def _slices(self, first: int, stop: int) -> Iterator[tuple[int, Slice]]:
        source: Source | None = None
        for group, (least, most) in enumerate(self._bounds):
            if least >= stop or most < first:
                continue
            table = self._read(group)
            start, end = np.searchsorted(table["shard"].to_numpy(), (first, stop))
            for batch in table.slice(start, end - start).to_batches(SLICES):
                for row in batch.to_pylist():
                    source = _source(row, source)
                    texts = tuple(row.get("texts") or ())  # earlier plans lack this column and `checksum`
                    yield row["shard"], Slice(source, row["start"], row["stop"], row["offset"], texts)

    def _group(self, group: int) -> pa.Table:
        with self._readable():
            return self._file.read_row_group(group)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:  # failures of the store are `StorageFailed`, no OSError
            raise OutputDamaged(f"the plan {self._uri} is damaged: {error}; {RESTORE}") from error


def _source(row: Mapping[str, Any], last: Source | None = None) -> Source:
    """The source of a row; `last` if it is the same, as it often is, so that they share its texts."""
    places = (row["uri"], row["format"], row["size"], row["version"], row["root"], row["rows"])
    found = Source(*places, row.get("checksum") or "")
    return last if found == last else found


class StoredSources:
    """The sources of a stored plan, each with its state: a text that differs if the file does.

    They come in the order of their URIs if `are_sorted`, else in that of the plan; a batch of each segment is held.
    """

    def __init__(self, output: str, plan: Plan) -> None:
        self._output = output
        self._segments = range(len(plan.segments))
        self.are_sorted = len(plan.segments) <= MERGED and all(map(self._is_sorted, self._segments))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        parts = [self._sources(number) for number in self._segments]
        every = merge(*parts) if self.are_sorted else chain.from_iterable(parts)
        return (found for found, _ in groupby(every))  # slices of one source follow one another

    def uris(self) -> Iterator[str]:
        return (uri for uri, _ in self)

    def named(self, uris: Collection[str]) -> Iterator[Source]:
        """The sources of these URIs, each once."""
        wanted = pa.array(uris, pa.string())
        names = ["uri", "format", "size", "version", "root", "rows", "checksum"]
        batches = chain.from_iterable(self._columns(number, names) for number in self._segments)
        rows = chain.from_iterable(b.filter(pc.is_in(b["uri"], value_set=wanted)).to_pylist() for b in batches)
        return (source for source, _ in groupby(map(_source, rows)))

    def _columns(self, number: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        return _Segment(self._output, number).batches(names)

    def _sources(self, number: int) -> Iterator[tuple[str, str]]:
        for batch in self._columns(number, ["uri", "size", "version"]):
            for uri, size, version in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield uri, source_state(size, version)

    def _is_sorted(self, number: int) -> bool:
        last = ""
        for batch in self._columns(number, ["uri"]):
            uris = batch.column(0)
            if last > uris[0].as_py() or pc.any(pc.greater(uris[:-1], uris[1:])).as_py():
                return False
            last = uris[-1].as_py()
        return True


def source_state(size: int, version: str) -> str:
    return f"{size} {version}"


def rows_of(output: str, plan: Plan, shards: Iterable[int]) -> np.ndarray | None:
    """Rows of some shards of a plan, int64, in the order of their numbers; None if they are not known before they are
    read."""
    wanted = np.zeros(plan.shards, bool)
    wanted[list(shards)] = True
    rows = np.zeros(plan.shards, np.int64)
    for number in range(len(plan.segments)):
        for batch in _Segment(output, number).batches(["shard", "start", "stop"]):
            batch = batch.filter(pa.array(wanted[batch["shard"].to_numpy()]))
            if batch["stop"].null_count:
                return None
            np.add.at(rows, batch["shard"].to_numpy(), pc.subtract(batch["stop"], batch["start"]).to_numpy())
    return rows[wanted]
