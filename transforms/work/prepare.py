"""From rows as they were read to rows that the model takes: the stage that rejects and filters."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from transforms.batch import (
    CODES,
    ERROR_CODE,
    ERROR_MESSAGE,
    FILTERED,
    IMAGE,
    IMAGE_FILE,
    IMAGE_URI,
    KEY,
    ORIGINAL_HEIGHT,
    ORIGINAL_WIDTH,
    READER_COLUMNS,
    ROW,
    URI,
    fixed_lists,
    missing_captions,
)
from transforms.errors import RowFiltered, RowRejected, amount
from transforms.images import DecodedImage
from transforms.inputs.request import InputSchema

NO_CAPTION = "the row has no caption, which require_caption, rank and vary method model ask for"
Fetch = Callable[[str], bytes]
Decode = Callable[[bytes], DecodedImage]


@dataclass(frozen=True)
class Refusal:
    """A row that ends here: rejected with a code, or filtered with a reason."""

    row: int
    key: str
    uri: str
    stage: str
    cause: RowRejected | RowFiltered


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


class Preparer(Protocol):
    """`submit` starts the work on a batch in the pools; the call that it returns waits for the result. `cancel` gives
    up the work that has not been started, so that the pools are free for other shards."""

    @property
    def seconds(self) -> float:
        """Of threads, at work on images, codes or texts."""

    def submit(self, batch: pa.RecordBatch, first_row: int) -> Callable[[], Prepared]: ...

    def cancel(self) -> None: ...


class PrepareImages:
    """Fetches and decodes images in thread pools; the pixels that `decode` makes come out.

    `keep_files` adds the column `IMAGE`: the file as it came, and its name if the row only named it. The files of the
    batches in flight then lie in memory beside the pixels: see `Work.rows_prepared`.
    """

    def __init__(
        self,
        decode: Decode,
        schema: InputSchema,
        fetch: Fetch,
        decode_pool: Executor,
        fetch_pool: Executor,
        require_caption: bool,
        keep_files: bool = False,
    ) -> None:
        self.seconds = 0.0  # of threads, decoding
        self._decoder = decode
        self._keeps_sizes = keeps_original_sizes(schema.passthrough)
        self._fetch = fetch
        self._decode_pool = decode_pool
        self._fetch_pool = fetch_pool
        self._require_caption = require_caption
        self._keep_files = keep_files
        self._lock = threading.Lock()
        self._submitted: deque[dict[int, Future[_Read]]] = deque()  # batches whose results nobody has taken

    def submit(self, batch: pa.RecordBatch, first_row: int) -> Callable[[], Prepared]:
        known = known_refusals(batch, first_row, self._require_caption)
        images = batch.column(IMAGE)
        uris = batch.column(IMAGE_URI)
        waiting: dict[int, Future[_Read]] = {}
        for i in range(batch.num_rows):
            if i in known:
                continue
            if images[i].is_valid:
                waiting[i] = self._decode_pool.submit(self._decode, images[i])
            else:
                waiting[i] = self._fetch_pool.submit(self._fetch_and_decode, uris[i].as_py())
        self._submitted.append(waiting)

        def result() -> Prepared:
            read: dict[int, _Read] = {}
            for i, future in waiting.items():
                try:
                    read[i] = future.result()
                except (RowRejected, RowFiltered) as cause:
                    known[i] = refusal(batch, i, first_row, "decode", cause)
            self._submitted.popleft()
            good = [read[i] for i in sorted(read)]
            prepared = gather(batch, first_row, known, [one.image.pixels for one in good])
            return replace(prepared, columns=self._with_own_columns(prepared.columns, batch, good, sorted(read)))

        return result

    def cancel(self) -> None:
        for waiting in self._submitted:
            for future in waiting.values():
                future.cancel()

    def _with_own_columns(
        self, columns: pa.RecordBatch, batch: pa.RecordBatch, good: list[_Read], rows: list[int]
    ) -> pa.RecordBatch:
        """`columns` with the sizes and files of the good images, which are the `rows` of `batch`."""
        if not self._keeps_sizes:
            widths = pa.array([one.image.original_width for one in good], pa.int32())
            heights = pa.array([one.image.original_height for one in good], pa.int32())
            columns = columns.append_column(ORIGINAL_WIDTH, widths).append_column(ORIGINAL_HEIGHT, heights)
        if self._keep_files:
            uris = batch.column(IMAGE_URI).take(pa.array(rows, pa.int64()))
            files = [
                {"bytes": one.data, "path": uri and uri.rpartition("/")[2]}
                for one, uri in zip(good, uris.to_pylist(), strict=True)
            ]
            columns = columns.append_column(IMAGE, pa.array(files, IMAGE_FILE))
        return columns

    def _fetch_and_decode(self, uri: str) -> _Read:
        data = self._fetch(uri)
        return self._decode_pool.submit(self._decode, data).result()

    def _decode(self, data: bytes | pa.Scalar) -> _Read:
        start = time.perf_counter()
        try:
            data = data if isinstance(data, bytes) else data.as_py()
            return _Read(self._decoder(data), data if self._keep_files else None)
        finally:
            with self._lock:
                self.seconds += time.perf_counter() - start


class _Read(NamedTuple):
    image: DecodedImage
    data: bytes | None


class PrepareCodes:
    """Checks codes against the model's grid and codebook; `codes` int32 [T] come out."""

    def __init__(self, codes_per_image: int, codebook_size: int, require_caption: bool = False) -> None:
        self.seconds = 0.0
        self._require_caption = require_caption
        self._length = codes_per_image
        self._size = codebook_size

    def submit(self, batch: pa.RecordBatch, first_row: int) -> Callable[[], Prepared]:
        def result() -> Prepared:
            start = time.perf_counter()
            known = known_refusals(batch, first_row, self._require_caption)
            arrays: list[np.ndarray] = []
            column = batch.column(CODES)
            for i in range(batch.num_rows):
                if i in known:
                    continue
                try:
                    arrays.append(self._check(column[i]))
                except RowRejected as cause:
                    known[i] = refusal(batch, i, first_row, "decode", cause)
            prepared = gather(batch, first_row, known, arrays)
            self.seconds += time.perf_counter() - start
            return prepared

        return result

    def cancel(self) -> None:
        return

    def _check(self, cell: pa.ListScalar) -> np.ndarray:
        if not cell.is_valid or cell.values.null_count:
            raise RowRejected("missing_codes", "the codes are null")
        return fitting_codes(cell.values.to_numpy(zero_copy_only=False), self._length, self._size)


def fitting_codes(codes: np.ndarray, codes_per_image: int, codebook_size: int) -> np.ndarray:
    """Integers [N] of any type -> int32 [codes_per_image].

    Raises `RowRejected` (wrong_code_count, code_out_of_range) unless they are a full grid of a codebook's ids.
    """
    if len(codes) != codes_per_image:
        there = amount(len(codes), "codes")
        raise RowRejected("wrong_code_count", f"{there}; the model's grid has {codes_per_image:,}")
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= codebook_size:
        raise RowRejected("code_out_of_range", f"code {low if low < 0 else high}; the codebook has {codebook_size}")
    return codes.astype(np.int32)


def keeps_original_sizes(passthrough: pa.Schema) -> bool:
    """Whether the input has columns of the true original sizes, as img2dataset's has."""
    names = (ORIGINAL_WIDTH, ORIGINAL_HEIGHT)
    return all(name in passthrough.names and pa.types.is_integer(passthrough.field(name).type) for name in names)


def known_refusals(batch: pa.RecordBatch, first_row: int, require_caption: bool) -> dict[int, Refusal]:
    """Rows that the reader rejected or filtered and, if a caption is required, rows without one."""
    known: dict[int, Refusal] = {}
    codes = batch.column(ERROR_CODE)
    filtered = batch.column(FILTERED)
    if codes.null_count < batch.num_rows or filtered.null_count < batch.num_rows:
        messages = batch.column(ERROR_MESSAGE)
        for i in range(batch.num_rows):
            if codes[i].is_valid:
                cause = RowRejected(codes[i].as_py(), messages[i].as_py() or "")
                known[i] = refusal(batch, i, first_row, "read", cause)
            elif filtered[i].is_valid:
                known[i] = refusal(batch, i, first_row, "read", RowFiltered(filtered[i].as_py()))
    if require_caption:
        for i in np.flatnonzero(missing_captions(batch)).tolist():
            if i not in known:
                cause = RowRejected("missing_caption", NO_CAPTION)
                known[i] = refusal(batch, i, first_row, "read", cause)
    return known


def refusal(batch: pa.RecordBatch, i: int, first_row: int, stage: str, cause: RowRejected | RowFiltered) -> Refusal:
    return Refusal(first_row + i, batch.column(KEY)[i].as_py(), batch.column(URI)[i].as_py(), stage, cause)


def refusal_of(batch: pa.RecordBatch, i: int, stage: str, cause: RowRejected | RowFiltered) -> Refusal:
    """Row `i` of a batch that has been prepared ends at a later stage."""
    key, uri = batch.column(KEY)[i].as_py(), batch.column(URI)[i].as_py()
    return Refusal(batch.column(ROW)[i].as_py(), key, uri, stage, cause)


def gather(batch: pa.RecordBatch, first_row: int, known: dict[int, Refusal], arrays: list[np.ndarray]) -> Prepared:
    """The rows that are in `known` taken out, the reader's own columns dropped, row numbers added."""
    good = np.array([i for i in range(batch.num_rows) if i not in known], np.int64)
    columns = batch.drop_columns([name for name in READER_COLUMNS if name in batch.schema.names])
    columns = columns.take(pa.array(good)).append_column(ROW, pa.array(good + first_row))
    missing = int(missing_captions(columns).sum())
    return Prepared(columns, arrays, [known[i] for i in sorted(known)], batch.num_rows, missing)


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
