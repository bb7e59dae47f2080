"""From prompts or captions to the batches that a generator takes: tokenised in the pool, then cut into slots."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from threading import Lock
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.bart.options import OPTIONS, Drawing
from models.bart.text import EncodedText, TextEncoder
from transforms.batch import (
    ATTENTION_MASK,
    CAPTION,
    IMAGES,
    INPUT_IDS,
    KEY,
    PROMPT,
    ROW,
    SAMPLE,
    SLOT,
    first_caption,
    fixed_lists,
    joined,
)
from transforms.errors import RowRejected
from transforms.inputs.options import arrow_type
from transforms.inputs.rows import too_long
from transforms.work.prepare import Prepared, Preparer, Refusal, gather, known_refusals, refusal

CUT = "a prompt is longer than the model reads and was cut"


class PreparePrompts:
    """Runs `prepare_prompts` in the pool."""

    def __init__(self, text: TextEncoder, drawing: Drawing, pool: Executor) -> None:
        self.seconds = 0.0  # of threads, encoding
        self._text = text
        self._drawing = drawing
        self._pool = pool
        self._lock = Lock()
        self._submitted: deque[Future[Prepared]] = deque()

    def submit(self, batch: pa.RecordBatch, first_row: int) -> Callable[[], Prepared]:
        future = self._pool.submit(self._prepare, batch, first_row)
        self._submitted.append(future)

        def result() -> Prepared:
            prepared = future.result()
            self._submitted.popleft()
            return prepared

        return result

    def cancel(self) -> None:
        for future in self._submitted:
            future.cancel()

    def _prepare(self, batch: pa.RecordBatch, first_row: int) -> Prepared:
        start = time.perf_counter()
        prepared = prepare_prompts(batch, first_row, self._text, self._drawing)
        with self._lock:
            self.seconds += time.perf_counter() - start
        return prepared


def prepare_prompts(batch: pa.RecordBatch, first_row: int, text: TextEncoder, drawing: Drawing) -> Prepared:
    """Fill in the options that the rows of a canonical batch leave open, and encode their texts.

    Every row stands for its images in the counts.
    """
    batch = _with_options(batch, drawing)
    known = known_refusals(batch, first_row, require_caption=False)
    prompts = [prompt or "" for prompt in batch.column(CAPTION).to_pylist()]
    encoded = text.encode(prompts, batch.column(KEY).to_pylist())
    for i in np.flatnonzero(encoded.empty).tolist():
        if i not in known:
            known[i] = refusal(batch, i, first_row, "read", RowRejected(*empty_text("prompt", prompts[i])))
    return _gathered(batch, first_row, known, encoded)


def empty_text(name: str, text: str) -> tuple[str, str]:
    """The error of a text that gives the model nothing to draw; `name` is what messages call the text."""
    if not text.strip():
        return "empty_prompt", f"the {name} is empty or blank: nothing to draw"
    return "empty_prompt", f"the model's normaliser leaves nothing of the {name} {text[:80]!r}"


def _with_options(batch: pa.RecordBatch, drawing: Drawing) -> pa.RecordBatch:
    for name in OPTIONS:
        filled = pc.fill_null(batch.column(name), pa.scalar(drawing[name], arrow_type(name)))
        batch = batch.set_column(batch.schema.get_field_index(name), name, filled)
    return batch


def _gathered(batch: pa.RecordBatch, first_row: int, known: dict[int, Refusal], encoded: EncodedText) -> Prepared:
    images = batch.column(IMAGES).to_pylist()
    good = np.array([i for i in range(batch.num_rows) if i not in known], np.int64)
    columns = gather(batch, first_row, known, []).columns
    columns = columns.rename_columns([PROMPT if name == CAPTION else name for name in columns.schema.names])
    refusals = [known[i] for i in sorted(known) for _ in range(images[i])]
    return Prepared(_with_texts(columns, encoded, good), [], refusals, sum(images), 0, _cut(encoded, good))


def _with_texts(columns: pa.RecordBatch, encoded: EncodedText, rows: np.ndarray) -> pa.RecordBatch:
    """`columns` with the encoded texts of these rows."""
    columns = columns.append_column(INPUT_IDS, fixed_lists(encoded.input_ids[rows]))
    return columns.append_column(ATTENTION_MASK, fixed_lists(encoded.attention_mask[rows]))


def _cut(encoded: EncodedText, rows: np.ndarray) -> dict[str, int]:
    """The notice of texts that were cut, among these rows."""
    cut = int(encoded.truncated[rows].sum())
    return {CUT: cut} if cut else {}


class PrepareCaptioned:
    """Around `PrepareImages` or `PrepareCodes` that require a caption: adds the encoded caption for a DALL·E BART.

    Of several captions the first that is not blank is taken. A row is rejected if its caption leaves nothing to read.
    """

    def __init__(self, sources: Preparer, text: TextEncoder, pool: Executor) -> None:
        self._sources = sources
        self._text = text
        self._pool = pool

    @property
    def seconds(self) -> float:
        """Of threads, decoding images or checking codes."""
        return self._sources.seconds

    def submit(self, batch: pa.RecordBatch, first_row: int) -> Callable[[], Prepared]:
        waiting = self._sources.submit(batch, first_row)
        captions = [first_caption(cell) for cell in batch.column(CAPTION).to_pylist()]
        long = [too_long(len(caption.encode("utf-8", "replace"))) for caption in captions]
        read = ["" if error else caption for caption, error in zip(captions, long, strict=True)]
        encoding = self._pool.submit(self._text.encode, read, batch.column(KEY).to_pylist())

        def result() -> Prepared:
            prepared, encoded = waiting(), encoding.result()
            unread: dict[int, Refusal] = {}
            for i in (prepared.columns.column(ROW).to_numpy() - first_row).tolist():
                error = long[i]
                if error is None and encoded.empty[i]:
                    error = empty_text("caption", captions[i])
                if error is not None:
                    unread[i] = refusal(batch, i, first_row, "read", RowRejected(*error))
            return _captioned(prepared, encoded, first_row, unread)

        return result

    def cancel(self) -> None:
        self._sources.cancel()


def _captioned(prepared: Prepared, encoded: EncodedText, first_row: int, unread: Mapping[int, Refusal]) -> Prepared:
    """The rows that are in `unread` moved to the refusals, the others with their texts."""
    rows = prepared.columns.column(ROW).to_numpy() - first_row
    kept = np.array([row not in unread for row in rows.tolist()], bool)
    return replace(
        prepared,
        columns=_with_texts(prepared.columns.filter(pa.array(kept)), encoded, rows[kept]),
        arrays=[array for array, keep in zip(prepared.arrays, kept.tolist(), strict=True) if keep],
        refusals=sorted([*prepared.refusals, *unread.values()], key=lambda refused: refused.row),
        notices={**prepared.notices, **_cut(encoded, rows[kept])},
    )


class Slot(NamedTuple):
    """A slot of the generator's batch: a prompt's row, as `prepare_prompts` makes it, and the numbers of the images
    that are drawn in it."""

    prompt: pa.RecordBatch
    samples: range


def slot_batches(parts: Iterable[Prepared], slots: int, images_per_slot: int) -> Iterator[pa.RecordBatch]:
    """Rows of prompts -> batches with a row an image, for a generator with so many slots.

    A prompt that wants more images takes several slots, one that wants fewer leaves a part of its slot unused. Slots
    are filled in order, so that the images of a prompt come one after the other.
    """
    filled: list[Slot] = []
    for part in parts:
        for i, images in enumerate(part.columns.column(IMAGES).to_pylist()):
            for slot in slots_of(part.columns.slice(i, 1), images, images_per_slot):
                filled.append(slot)
                if len(filled) == slots:
                    yield slot_batch(filled)
                    filled = []
    if filled:
        yield slot_batch(filled)


def slots_of(prompt: pa.RecordBatch, images: int, images_per_slot: int) -> Iterator[Slot]:
    """The slots that so many images of a prompt take."""
    for first in range(0, images, images_per_slot):
        yield Slot(prompt, range(first, min(first + images_per_slot, images)))


def slot_batch(slots: Sequence[Slot]) -> pa.RecordBatch:
    """A row an image, with its `sample` and `slot`."""
    rows = joined([slot.prompt for slot in slots])
    numbers = np.repeat(np.arange(len(slots), dtype=np.int32), [len(slot.samples) for slot in slots])
    batch = rows.take(pa.array(numbers))
    samples = [sample for slot in slots for sample in slot.samples]
    return batch.append_column(SAMPLE, pa.array(samples, pa.int32())).append_column(SLOT, pa.array(numbers))
