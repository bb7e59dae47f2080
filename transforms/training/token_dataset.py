"""`TokenDataset`: tables of tokens as a torch dataset, the same rows in the same order for any ranks and workers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from transforms import storage
from transforms.batch import CAPTION, ENCODING, KEY, first_caption
from transforms.errors import UsageError
from transforms.ledger.folder import SORTED, SUCCESS, OutputFolder
from transforms.training.row_order import RowOrder, Share, Window

READERS = 16  # footers read at once
ROWS_HANDED = 1024  # turned into tensors at once
WINDOW_ROWS = 1 << 16

Row = dict[str, Any]


class TokenDataset(IterableDataset[Row]):
    """The rows of token tables: `encoding` as an int64 tensor, `key` and `caption` as strings, of those that there are.

    `source` is an output folder of vqbeam, a folder of Parquet files or a glob, local or a URL. The order is a function
    of the tables and, with `shuffle`, of `seed` and the epoch: row groups are shuffled, then the rows of as many groups
    as hold `window_rows`, which bounds the memory. `columns` names more columns. A missing caption is "", of several
    the first is taken.

    The stream of rows is dealt out to ranks and their workers, `batch_size` rows at a time. Give it the batch size of
    the loader, and step s of all ranks takes the same rows, in order, for any number of workers, and for any number of
    ranks that together take as many. Ranks are found in torch.distributed, else in RANK and WORLD_SIZE. Each worker
    reads all tables and keeps its own rows. At the very end of the stream some ranks may have a batch more than others.

    One iteration gives `epochs` epochs, from where `set_epoch` or `load_state_dict` has put it.
    """

    def __init__(
        self,
        source: str | Path | Sequence[str | Path],
        *,
        shuffle: bool = False,
        seed: int = 0,
        epochs: int = 1,
        batch_size: int = 1,
        columns: Sequence[str] = (),
        code_column: str = ENCODING,
        window_rows: int = WINDOW_ROWS,
        rank: int | None = None,
        ranks: int | None = None,
    ) -> None:
        """Reads the footers of all tables. Raises `UsageError` if they are no tables of tokens."""
        super().__init__()
        for name, value in (("epochs", epochs), ("batch_size", batch_size), ("window_rows", window_rows)):
            if value < 1:
                raise UsageError(f"{value}: expected a whole number, at least 1", name)
        self._rank, self._ranks = _place(rank, ranks)
        self._codes = code_column
        self._tables = find_tables([source] if isinstance(source, str | Path) else source)
        with ThreadPoolExecutor(READERS) as pool:
            footers = list(pool.map(_footer, self._tables))
        self._columns = _checked_columns(self._tables, footers, code_column, columns)
        self._footers = footers
        self._groups = [(file, group) for file, footer in enumerate(footers) for group in range(footer.num_row_groups)]
        sizes = [footers[file].row_group(group).num_rows for file, group in self._groups]
        self._order = RowOrder(sizes, shuffle, seed, window_rows)
        if self.rows == 0:
            raise UsageError(f"no rows in {self._tables[0]}" + (" and others" if len(self._tables) > 1 else ""))
        self._epochs = epochs
        self._batch_size = batch_size
        # Where an iteration begins and ends; shared, so that workers that live on see it.
        self._span = torch.tensor([0, epochs * self.rows]).share_memory_()
        self._resumed: Mapping[str, Any] | None = None  # the state of this very reader
        self._begun, self._taken = 0, 0  # of the last iteration

    @property
    def rows(self) -> int:
        """Rows of one epoch, of all ranks."""
        return self._order.rows

    def set_epoch(self, epoch: int) -> None:
        """Have iterations begin with this epoch, counted from 0."""
        self._resumed = None
        self._begin(epoch * self.rows, (epoch + self._epochs) * self.rows)

    def state_dict(self) -> dict[str, Any]:
        """How far this reader has come. A loader with workers has a state for each; torchdata's StatefulDataLoader
        keeps them."""
        share, begun, taken = self._share(), self._begun, self._taken
        state = {"order": self._order_id(), "begun": begun, "end": int(self._span[1]), "taken": taken, **vars(share)}
        whole = taken % self._batch_size == 0 or share.ranks == 1
        if share.workers == 1 and whole:
            state["rows"] = min(begun + taken * share.ranks, state["end"])  # of all ranks, if they are as far
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind a state. `{"rows": n}` goes on behind the first n rows that all ranks took together: the steps
        times the batches of all ranks, for loaders that keep no state. Raises `UsageError`."""
        if state.get("order", self._order_id()) != self._order_id():
            raise UsageError("this state is of other tables, another seed or other options: it says nothing here")
        if "taken" in state and self._is_mine(state):
            self._resumed = dict(state)
            if get_worker_info() is None:
                self._begin(int(state["begun"]), int(state["end"]))
            self._begun, self._taken = int(state["begun"]), int(state["taken"])
            return
        if "rows" not in state:
            raise UsageError(
                f"this state is of worker {state['worker']} of {state['workers']} on rank {state['rank']} of "
                f'{state["ranks"]}: load it there, or load {{"rows": n}} with the rows that all ranks took together'
            )
        rows, stream = int(state["rows"]), self._epochs * self.rows
        self._resumed = None
        self._begin(rows, int(state.get("end", max(1, -(-rows // stream)) * stream)))

    def __iter__(self) -> Iterator[Row]:
        share, end = self._share(), int(self._span[1])
        begun, taken = int(self._span[0]), 0
        if self._resumed is not None and self._is_mine(self._resumed):
            begun, end, taken = (int(self._resumed[name]) for name in ("begun", "end", "taken"))
        self._resumed = None
        self._begun, self._taken = begun, taken
        return self._rows_from(share, begun, end, taken)

    def _rows_from(self, share: Share, begun: int, end: int, taken: int) -> Iterator[Row]:
        first = begun + share.position(taken)
        for window in self._order.windows(first, end):
            positions = np.arange(window.start, window.start + window.rows)
            mine = (positions >= first) & (positions < end)
            mine[mine] &= share.owned(positions[mine] - begun)
            if mine.any():
                for row in self._read(window, mine):
                    self._taken += 1
                    yield row

    def _read(self, window: Window, mine: np.ndarray) -> Iterator[Row]:
        table = pa.concat_tables(
            [self._read_group(*self._groups[group]) for group in window.groups], promote_options="permissive"
        )
        table = table.take(pa.array(self._order.rows_of(window)[mine]))
        for start in range(0, table.num_rows, ROWS_HANDED):
            part = table.slice(start, ROWS_HANDED)
            codes = _tensors(part[self._codes], self._tables[self._groups[window.groups[0]][0]])
            others = part.drop_columns([self._codes]).to_pylist()
            for tensor, row in zip(codes, others, strict=True):
                if CAPTION in row:
                    row[CAPTION] = first_caption(row[CAPTION])
                yield {**row, ENCODING: tensor}

    def _read_group(self, file: int, group: int) -> pa.Table:
        with storage.open_read(self._tables[file]) as opened:
            table = pq.ParquetFile(opened, metadata=self._footers[file]).read_row_group(group, columns=self._columns)
        kinds = [_plain(field.type) for field in table.schema]  # tables of a folder may differ in what does not matter
        return table.select(self._columns).cast(
            pa.schema([(name, kinds[table.schema.get_field_index(name)]) for name in self._columns])
        )

    def _share(self) -> Share:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        return Share(self._rank, self._ranks, worker, workers, self._batch_size)

    def _is_mine(self, state: Mapping[str, Any]) -> bool:
        return all(state.get(name) == value for name, value in vars(self._share()).items())

    def _begin(self, start: int, end: int) -> None:
        self._span[0], self._span[1] = start, end
        self._begun, self._taken = start, 0

    def _order_id(self) -> str:
        order = self._order
        text = json.dumps([list(order.sizes), order.shuffle, order.seed, order.window_rows if order.shuffle else 0])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_tables(sources: Sequence[str | Path]) -> list[str]:
    """The Parquet files of folders, output folders and globs, sorted. Raises `UsageError`."""
    found: list[str] = []
    for source in sources:
        folder = storage.absolute(os.path.expanduser(source))
        if storage.has_wildcard(folder):
            files = storage.list_files(folder)
        elif storage.exists(OutputFolder(folder).shards(0)):
            if not storage.exists(storage.join(folder, SUCCESS)):
                raise UsageError(f"{folder} is not finished: run its command again, or give {folder}/data/*.parquet")
            files = storage.list_files(storage.join(folder, "data"))
        elif storage.exists(OutputFolder(storage.join(folder, SORTED)).shards(0)):
            raise UsageError(f"{folder} holds an export in splits: give the folder of one of them")
        else:
            files = [info for info in storage.list_files(folder) if not _hidden(info.uri[len(folder) :])]
        tables = [info.uri for info in files if info.uri.endswith(".parquet")]
        if not tables:
            raise UsageError(f"no Parquet files in {folder}")
        found += tables
    return sorted(set(found))


def _hidden(path: str) -> bool:
    return any(part[:1] in ("_", ".") for part in path.strip("/").split("/"))


def _footer(uri: str) -> pq.FileMetaData:
    with storage.open_read(uri) as file:
        try:
            return pq.read_metadata(file)
        except pa.ArrowInvalid as error:
            raise UsageError(f"{uri} is no readable Parquet file: {error}") from error


def _checked_columns(
    tables: Sequence[str], footers: Sequence[pq.FileMetaData], codes: str, more: Sequence[str]
) -> list[str]:
    """The columns to read. Raises `UsageError` if a table lacks one, or has no codes in that of codes."""
    first = footers[0].schema.to_arrow_schema()
    wanted = list(dict.fromkeys([codes, *(name for name in (KEY, CAPTION) if name in first.names), *more]))
    for uri, footer in zip(tables, footers, strict=True):
        schema = footer.schema.to_arrow_schema()
        missing = [name for name in wanted if name not in schema.names]
        if missing:
            raise UsageError(f"{uri} has no column {missing[0]}; it has {', '.join(schema.names)}")
        kind = schema.field(codes).type
        if not (_is_list(kind) and pt.is_integer(kind.value_type)):
            raise UsageError(f"{uri}: column {codes} holds {kind}, and no lists of codes", "code_column")
    return wanted


def _is_list(kind: pa.DataType) -> bool:
    return pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)


def _plain(kind: pa.DataType) -> pa.DataType:
    """A type that tables of one job and of several have in common."""
    if _is_list(kind) and pt.is_integer(kind.value_type):
        return pa.list_(pa.int64())
    return kind


def _tensors(column: pa.ChunkedArray, uri: str) -> Iterator[torch.Tensor]:
    codes = column.combine_chunks()
    values = codes.flatten()
    if codes.null_count or values.null_count:
        raise UsageError(f"{uri}, or a table read with it, has a row without codes")
    data = values.to_numpy(zero_copy_only=False).astype(np.int64)  # of its own: torch wants to write
    offsets = codes.offsets.to_numpy() - codes.offsets[0].as_py()
    for start, stop in pairwise(offsets):
        yield torch.from_numpy(data[start:stop])


def _place(rank: int | None, ranks: int | None) -> tuple[int, int]:
    """This process among those that train together. Raises `UsageError`."""
    if (rank is None) != (ranks is None):
        raise UsageError("rank and ranks go together: give both, or none")
    if rank is None or ranks is None:
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if not 0 <= rank < ranks:
        raise UsageError(f"rank {rank} of {ranks} ranks: expected one from 0 to {ranks - 1}")
    return rank, ranks
