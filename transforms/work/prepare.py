"""From rows as they were read to rows that the model takes: the stage that rejects and filters."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from math import isqrt
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from transforms.batch import (
    CODES,
    CROP,
    CROP_TYPE,
    ERROR_CODE,
    ERROR_MESSAGE,
    FILTERED,
    GRID_H,
    GRID_W,
    IMAGE,
    IMAGE_FILE,
    IMAGE_URI,
    KEY,
    ORIGINAL_HEIGHT,
    ORIGINAL_WIDTH,
    PASS_PREFIX,
    READER_COLUMNS,
    ROW,
    URI,
    VIEW,
    fixed_lists,
    missing_captions,
)
from transforms.errors import RowFiltered, RowRejected, amount
from transforms.images import DecodedImage
from transforms.inputs.columns import keeps_original_sizes
from transforms.inputs.request import InputSchema

NO_CAPTION = "the row has no caption, which require_caption, rank and vary method model ask for"
P = ParamSpec("P")
T = TypeVar("T")
Fetch = Callable[[str], bytes]
Decode = Callable[[bytes], DecodedImage]
DecodeViews = Callable[[bytes, str], DecodedImage]  # of a file and the key of its row
Cause = RowRejected | RowFiltered
Refused = dict[int, tuple[str, Cause]]  # rows of a batch that end here: the stage, and why


class Grid(Protocol):
    """What codes must fit, of a tokenizer or of tables."""

    @property
    def codes_per_image(self) -> int: ...

    @property
    def codebook_size(self) -> int: ...


@dataclass(frozen=True)
class Refusal:
    """A row that ends here: rejected with a code, or filtered with a reason."""

    row: int
    key: str
    uri: str
    stage: str
    cause: Cause


@dataclass(frozen=True)
class Prepared:
    """The good rows of one batch read: their columns (with `row`), one array each, and the refusals.

    `rows_read` is what the counts must balance to: if a row of the input stands for several images, it counts each of
    them, and a refused row has as many refusals. `notices` counts, in words, changes to rows that are kept.
    """

    columns: pa.RecordBatch
    arrays: list[np.ndarray]
    refusals: list[Refusal]
    rows_read: int
    missing_captions: int
    notices: Mapping[str, int] = field(default_factory=dict)


class Pool:
    """A thread pool of the process as one shard uses it: it counts the seconds of the shard's calls, and can drop those
    that have not started."""

    def __init__(self, executor: Executor) -> None:
        self.seconds = 0.0  # of threads at work
        self._executor = executor
        self._lock = threading.Lock()
        self._unfinished: set[Future[Any]] = set()

    def submit(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> Future[T]:
        def timed() -> T:
            start = time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                with self._lock:
                    self.seconds += time.perf_counter() - start

        future = self._executor.submit(timed)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future

    def cancel(self) -> None:
        """Drop the calls that have not started, so that the threads are free for other shards."""
        for future in list(self._unfinished):
            future.cancel()


class Pools(NamedTuple):
    decode: Pool
    fetch: Pool


# Starts the work on a batch, given the number of its first row; the call that it returns waits for the result.
Preparer = Callable[[pa.RecordBatch, int], Callable[[], Prepared]]


def in_pool(pool: Pool, prepare: Callable[[pa.RecordBatch, int], Prepared]) -> Preparer:
    """`prepare` for a whole batch at a time in a thread of the pool."""
    return lambda batch, first_row: pool.submit(prepare, batch, first_row).result


@dataclass(frozen=True)
class PrepareImages:
    """Fetches and decodes images in thread pools; the pixels that `decode` makes come out.

    `keep_files` adds the column `IMAGE`: the file as it came, and its name if the row only named it. The files of the
    batches in flight then lie in memory beside the pixels: see `Work.rows_prepared`. `views` takes the place of
    `decode`, and adds the column `CROP`; an array then holds all views of its image.
    """

    decode: Decode
    schema: InputSchema
    fetch: Fetch
    pools: Pools
    require_caption: bool
    keep_files: bool = False
    views: DecodeViews | None = None

    def __call__(self, batch: pa.RecordBatch, first_row: int) -> Callable[[], Prepared]:
        refused = refused_rows(batch, self.require_caption)
        images = batch.column(IMAGE)
        uris = batch.column(IMAGE_URI)
        keys = batch.column(KEY)
        waiting: dict[int, Future[_Read]] = {}
        for i in range(batch.num_rows):
            if i in refused:
                continue
            if images[i].is_valid:
                waiting[i] = self.pools.decode.submit(self._decode, images[i], keys[i].as_py())
            else:
                waiting[i] = self.pools.fetch.submit(self._fetch_and_decode, uris[i].as_py(), keys[i].as_py())

        def result() -> Prepared:
            read: dict[int, _Read] = {}
            for i, future in waiting.items():
                try:
                    read[i] = future.result()
                except (RowRejected, RowFiltered) as cause:
                    refused[i] = "decode", cause
            prepared = gather(batch, first_row, refused, [one.image.pixels for one in read.values()])
            notices = Counter(notice for one in read.values() for notice in one.image.notices)
            return replace(prepared, columns=self._with_own_columns(prepared.columns, batch, read), notices=notices)

        return result

    def _with_own_columns(
        self, columns: pa.RecordBatch, batch: pa.RecordBatch, read: Mapping[int, _Read]
    ) -> pa.RecordBatch:
        """`columns` with the sizes and files of the good images, by their rows in `batch`."""
        if not keeps_original_sizes(self.schema.passthrough):
            widths = pa.array([one.image.original_width for one in read.values()], pa.int32())
            heights = pa.array([one.image.original_height for one in read.values()], pa.int32())
            columns = columns.append_column(ORIGINAL_WIDTH, widths).append_column(ORIGINAL_HEIGHT, heights)
        if self.views:
            crops = [[vars(crop) for crop in one.image.crops] for one in read.values()]
            columns = columns.append_column(CROP, pa.array(crops, pa.list_(CROP_TYPE)))
        if self.keep_files:
            uris = batch.column(IMAGE_URI).take(pa.array(list(read), pa.int64()))
            files = [
                {"bytes": one.data, "path": uri and uri.rpartition("/")[2]}
                for one, uri in zip(read.values(), uris.to_pylist(), strict=True)
            ]
            columns = columns.append_column(IMAGE, pa.array(files, IMAGE_FILE))
        return columns

    def _fetch_and_decode(self, uri: str, key: str) -> _Read:
        return self.pools.decode.submit(self._decode, self.fetch(uri), key).result()

    def _decode(self, data: bytes | pa.Scalar, key: str) -> _Read:
        data = data if isinstance(data, bytes) else data.as_py()
        image = self.views(data, key) if self.views else self.decode(data)
        return _Read(image, data if self.keep_files else None)


class _Read(NamedTuple):
    image: DecodedImage
    data: bytes | None


def with_views(prepare: Preparer, views: int) -> Preparer:
    """`prepare` with a row for each view of an image; in the counts every row of the input stands for `views` rows."""

    def submit(batch: pa.RecordBatch, first_row: int) -> Callable[[], Prepared]:
        waiting = prepare(batch, first_row)
        return lambda: viewed(waiting())

    def viewed(prepared: Prepared) -> Prepared:
        images = prepared.columns.num_rows
        crops = prepared.columns.column(CROP).flatten()
        columns = prepared.columns.drop_columns([CROP]).take(pa.array(np.repeat(np.arange(images), views)))
        columns = columns.append_column(VIEW, pa.array(np.tile(np.arange(views, dtype=np.int32), images)))
        return replace(
            prepared,
            columns=columns.append_column(CROP, crops),
            arrays=[view for image in prepared.arrays for view in image],
            refusals=[refused for refused in prepared.refusals for _ in range(views)],
            rows_read=prepared.rows_read * views,
            missing_captions=prepared.missing_captions * views,
        )

    return submit


def prepare_codes(
    batch: pa.RecordBatch, first_row: int, spec: Grid, require_caption: bool = False, by_row: bool = False
) -> Prepared:
    """Check codes against the model's grid and codebook; `codes` int32 [T] come out.

    With `by_row` against the grid that each row says, which is added as `GRID_H` and `GRID_W`; one that says none, or
    none that holds its codes, has the model's.
    """
    refused = refused_rows(batch, require_caption)
    fitting = None if by_row else _fitting_grids(batch.column(CODES), spec)
    if fitting is not None:
        return gather(batch, first_row, refused, [row for i, row in enumerate(fitting) if i not in refused])
    arrays: list[np.ndarray] = []
    said = _said_grids(batch) if by_row else []
    grids: list[tuple[int, int]] = []
    for i, cell in enumerate(batch.column(CODES)):
        if i in refused:
            continue
        try:
            if not cell.is_valid or cell.values.null_count:
                raise RowRejected("missing_codes", "the codes are null")
            codes = cell.values.to_numpy(zero_copy_only=False)
            grid = said[i] if by_row else None
            if grid is not None and len(codes) == spec.codes_per_image != grid[0] * grid[1]:
                grid = None
            arrays.append(fitting_codes(codes, spec, grid))
            if by_row:
                side = isqrt(spec.codes_per_image)
                grids.append(grid or (side, side))
        except RowRejected as cause:
            refused[i] = "decode", cause
    prepared = gather(batch, first_row, refused, arrays)
    if not by_row:
        return prepared
    columns = prepared.columns
    for axis, name in enumerate((GRID_H, GRID_W)):
        columns = columns.append_column(name, pa.array([grid[axis] for grid in grids], pa.int32()))
    return replace(prepared, columns=columns)


def _fitting_grids(column: pa.ListArray, spec: Grid) -> np.ndarray | None:
    """int32 [N, codes_per_image] of N lists of codes; None if one is null, or is not as `fitting_codes` wants it."""
    values = column.flatten()
    if column.null_count or values.null_count or not len(column):
        return None
    if (np.diff(column.offsets.to_numpy()) != spec.codes_per_image).any():
        return None
    codes = values.to_numpy().reshape(len(column), -1)
    fits = codes.min() >= 0 and codes.max() < spec.codebook_size
    return codes.astype(np.int32) if fits else None


def _said_grids(batch: pa.RecordBatch) -> list[tuple[int, int] | None]:
    sides = (batch.column(PASS_PREFIX + name).to_pylist() for name in (GRID_H, GRID_W))
    return [(h, w) if (h or 0) > 0 and (w or 0) > 0 else None for h, w in zip(*sides, strict=True)]


def fitting_codes(codes: np.ndarray, spec: Grid, grid: tuple[int, int] | None = None) -> np.ndarray:
    """Integers [N] of any type -> int32 [codes_per_image], or as many as `grid` has.

    Raises `RowRejected` (wrong_code_count, code_out_of_range) unless they are a full grid of a codebook's ids.
    """
    count = spec.codes_per_image if grid is None else grid[0] * grid[1]
    if len(codes) != count:
        there, whose = amount(len(codes), "codes"), "the model's grid" if grid is None else f"a grid of {grid}"
        raise RowRejected("wrong_code_count", f"{there}; {whose} has {count:,}")
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= spec.codebook_size:
        found = low if low < 0 else high
        raise RowRejected("code_out_of_range", f"code {found}; the codebook has {spec.codebook_size}")
    return codes.astype(np.int32)


def refused_rows(batch: pa.RecordBatch, require_caption: bool) -> Refused:
    """Rows that the reader rejected or filtered and, if a caption is required, rows without one."""
    refused: Refused = {}
    codes, messages, filtered = (batch.column(name) for name in (ERROR_CODE, ERROR_MESSAGE, FILTERED))
    if codes.null_count < batch.num_rows or filtered.null_count < batch.num_rows:
        for i in range(batch.num_rows):
            if codes[i].is_valid:
                refused[i] = "read", RowRejected(codes[i].as_py(), messages[i].as_py() or "")
            elif filtered[i].is_valid:
                refused[i] = "read", RowFiltered(filtered[i].as_py())
    if require_caption:
        for i in np.flatnonzero(missing_captions(batch)).tolist():
            refused.setdefault(i, ("read", RowRejected("missing_caption", NO_CAPTION)))
    return refused


def refusal(batch: pa.RecordBatch, i: int, stage: str, cause: Cause, first_row: int | None = None) -> Refusal:
    """Row `i` of a batch ends at a stage. A batch as it was read has no column `ROW`, but a `first_row`."""
    row = batch.column(ROW)[i].as_py() if first_row is None else first_row + i
    return Refusal(row, batch.column(KEY)[i].as_py(), batch.column(URI)[i].as_py(), stage, cause)


def gather(batch: pa.RecordBatch, first_row: int, refused: Refused, arrays: list[np.ndarray]) -> Prepared:
    """The rows that do not end here, without the reader's own columns, with row numbers."""
    good = np.array([i for i in range(batch.num_rows) if i not in refused], np.int64)
    columns = batch.drop_columns([name for name in READER_COLUMNS if name in batch.schema.names])
    columns = columns.take(pa.array(good)).append_column(ROW, pa.array(good + first_row))
    refusals = [refusal(batch, i, *refused[i], first_row) for i in sorted(refused)]
    return Prepared(columns, arrays, refusals, batch.num_rows, int(missing_captions(columns).sum()))


def full_batches(parts: Iterable[Prepared], size: int, payload: str) -> Iterator[pa.RecordBatch]:
    """Cut the stream of good rows into batches of exactly `size` (the last may be smaller), payload as a column."""
    columns: list[pa.RecordBatch] = []
    arrays: list[np.ndarray] = []
    for part in parts:
        columns.append(part.columns)
        arrays.extend(part.arrays)
        while len(arrays) >= size:
            table = pa.Table.from_batches(columns)
            yield _batch(table.slice(0, size), arrays[:size], payload)
            columns, arrays = table.slice(size).to_batches(), arrays[size:]
    if arrays:
        yield _batch(pa.Table.from_batches(columns), arrays, payload)


def _batch(table: pa.Table, arrays: list[np.ndarray], payload: str) -> pa.RecordBatch:
    batch = table.combine_chunks().to_batches()[0]
    return batch.append_column(payload, fixed_lists(np.stack(arrays)))
