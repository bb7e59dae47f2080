"""From prompts as they were read to what the generator takes: one row a prompt, tokenised in the pool."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from threading import Lock
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.bart.options import OPTIONS, Drawing
from models.bart.text import EncodedText, TextEncoder
from transforms.batch import ATTENTION_MASK, INPUT_IDS, PROMPT, SAMPLE, SLOT, fixed_lists, joined
from transforms.errors import RowRejected
from transforms.inputs.options import arrow_type
from transforms.work.prepare import Prepared, Refusal, gather, known_refusals, refusal

CUT = "a prompt is longer than the model reads and was cut"


class PreparePrompts:
    """Does `prepare_prompts` in the pool."""

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
    """Fill in what the rows of a canonical batch leave open and encode their texts. Every row stands for its pictures
    in the counts."""
    batch = _with_options(batch, drawing)
    known = known_refusals(batch, first_row, require_caption=False)
    prompts = [prompt or "" for prompt in batch.column("caption").to_pylist()]
    encoded = text.encode(prompts, batch.column("key").to_pylist())
    for i in np.flatnonzero(encoded.empty).tolist():
        if i not in known:
            known[i] = refusal(batch, i, first_row, "read", RowRejected(*empty_text("prompt", prompts[i])))
    return _gathered(batch, first_row, known, encoded)


def empty_text(name: str, text: str) -> tuple[str, str]:
    """The error of a text that gives the model nothing to draw; `name` is what it is."""
    if not text.strip():
        return "empty_prompt", f"the {name} is empty or blank: nothing to draw"
    return "empty_prompt", f"the model's normaliser leaves nothing of the {name} {text[:80]!r}"


def _with_options(batch: pa.RecordBatch, drawing: Drawing) -> pa.RecordBatch:
    for name in OPTIONS:
        filled = pc.fill_null(batch.column(name), pa.scalar(drawing[name], arrow_type(name)))
        batch = batch.set_column(batch.schema.get_field_index(name), name, filled)
    return batch


def _gathered(batch: pa.RecordBatch, first_row: int, known: dict[int, Refusal], encoded: EncodedText) -> Prepared:
    images = batch.column("images").to_pylist()
    good = [i for i in range(batch.num_rows) if i not in known]
    prepared = gather(batch, first_row, known, [])
    columns = prepared.columns.rename_columns(
        [PROMPT if name == "caption" else name for name in prepared.columns.schema.names]
    )
    columns = columns.append_column(INPUT_IDS, fixed_lists(encoded.input_ids[good]))
    columns = columns.append_column(ATTENTION_MASK, fixed_lists(encoded.attention_mask[good]))
    cut = int(encoded.truncated[good].sum())
    return Prepared(
        columns,
        [],
        [known[i] for i in sorted(known) for _ in range(images[i])],
        sum(images),
        0,
        {CUT: cut} if cut else {},
    )


def picture_batches(parts: Iterable[Prepared], prompts: int, pictures: int) -> Iterator[pa.RecordBatch]:
    """Rows of prompts -> batches of a row a picture, for a generator of `prompts` places of `pictures` each.

    A prompt that wants more pictures takes several places, one that wants fewer leaves some of its place unused. Places
    are filled in order, so that the pictures of a prompt come one after the other.
    """
    places: list[Place] = []
    for part in parts:
        for i, images in enumerate(part.columns.column("images").to_pylist()):
            for first in range(0, images, pictures):
                places.append(Place(part.columns.slice(i, 1), range(first, min(first + pictures, images))))
                if len(places) == prompts:
                    yield place_batch(places)
                    places = []
    if places:
        yield place_batch(places)


class Place(NamedTuple):
    """One of the generator's places for prompts: a prompt's row, as `prepare_prompts` makes it, and which of its
    pictures."""

    prompt: pa.RecordBatch
    samples: range


def place_batch(places: Sequence[Place]) -> pa.RecordBatch:
    """A row a picture."""
    rows = joined([place.prompt for place in places])
    slots = np.repeat(np.arange(len(places), dtype=np.int32), [len(place.samples) for place in places])
    batch = rows.take(pa.array(slots))
    samples = [sample for place in places for sample in place.samples]
    return batch.append_column(SAMPLE, pa.array(samples, pa.int32())).append_column(SLOT, pa.array(slots))
