"""From prompts or captions to the batches that a generator takes: tokenised in the pool, then cut into slots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
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
from transforms.work.prepare import Pool, Prepared, Preparer, gather, refusal, refused_rows

CUT = "a prompt is longer than the model reads and was cut"


def prepare_prompts(batch: pa.RecordBatch, first_row: int, text: TextEncoder, drawing: Drawing) -> Prepared:
    """Fill in the options that the rows of a canonical batch leave open, and encode their texts.

    Every row stands for its images in the counts.
    """
    for name in OPTIONS:
        filled = pc.fill_null(batch.column(name), pa.scalar(drawing[name], arrow_type(name)))
        batch = batch.set_column(batch.schema.get_field_index(name), name, filled)
    refused = refused_rows(batch, require_caption=False)
    prompts = [prompt or "" for prompt in batch.column(CAPTION).to_pylist()]
    encoded = text.encode(prompts, batch.column(KEY).to_pylist())
    for i in np.flatnonzero(encoded.empty).tolist():
        refused.setdefault(i, ("read", empty_text("prompt", prompts[i])))
    prepared = gather(batch, first_row, refused, [])
    columns = prepared.columns.rename_columns(
        [PROMPT if name == CAPTION else name for name in prepared.columns.schema.names]
    )
    images = batch.column(IMAGES).to_pylist()
    refusals = [item for item in prepared.refusals for _ in range(images[item.row - first_row])]
    rows = columns.column(ROW).to_numpy() - first_row
    return Prepared(_with_texts(columns, encoded, rows), [], refusals, sum(images), 0, _cut(encoded, rows))


def empty_text(name: str, text: str) -> RowRejected:
    """The error of a text that gives the model nothing to draw; `name` is what messages call the text."""
    if not text.strip():
        return RowRejected("empty_prompt", f"the {name} is empty or blank: nothing to draw")
    return RowRejected("empty_prompt", f"the model's normaliser leaves nothing of the {name} {text[:80]!r}")


def _with_texts(columns: pa.RecordBatch, encoded: EncodedText, rows: np.ndarray) -> pa.RecordBatch:
    """`columns` with the encoded texts of these rows."""
    columns = columns.append_column(INPUT_IDS, fixed_lists(encoded.input_ids[rows]))
    return columns.append_column(ATTENTION_MASK, fixed_lists(encoded.attention_mask[rows]))


def _cut(encoded: EncodedText, rows: np.ndarray) -> dict[str, int]:
    """The notice of texts that were cut, among these rows."""
    cut = int(encoded.truncated[rows].sum())
    return {CUT: cut} if cut else {}


def with_captions(prepare: Preparer, text: TextEncoder, pool: Pool) -> Preparer:
    """`prepare`, which requires a caption, with the encoded caption for a DALL·E BART in addition.

    Of several captions the first that is not blank is taken. A row is rejected if its caption leaves nothing to read.
    """

    def submit(batch: pa.RecordBatch, first_row: int) -> Callable[[], Prepared]:
        waiting = prepare(batch, first_row)
        captions = [first_caption(cell) for cell in batch.column(CAPTION).to_pylist()]
        long = [too_long(len(caption.encode("utf-8", "replace"))) for caption in captions]
        read = ["" if error else caption for caption, error in zip(captions, long, strict=True)]
        encoding = pool.submit(text.encode, read, batch.column(KEY).to_pylist())

        def result() -> Prepared:
            prepared, encoded = waiting(), encoding.result()
            rows = prepared.columns.column(ROW).to_numpy() - first_row
            kept: list[int] = []
            refusals = list(prepared.refusals)
            for position, i in enumerate(rows.tolist()):
                error = long[i]
                if error or encoded.empty[i]:
                    cause = RowRejected(*error) if error else empty_text("caption", captions[i])
                    refusals.append(refusal(batch, i, "read", cause, first_row))
                else:
                    kept.append(position)
            return replace(
                prepared,
                columns=_with_texts(prepared.columns.take(pa.array(kept, pa.int64())), encoded, rows[kept]),
                arrays=[prepared.arrays[position] for position in kept],
                refusals=sorted(refusals, key=lambda refused: refused.row),
                notices={**prepared.notices, **_cut(encoded, rows[kept])},
            )

        return result

    return submit


class Slot(NamedTuple):
    """A slot of the generator's batch: a prompt's row, as `prepare_prompts` makes it, and the numbers of the images
    that are drawn in it."""

    prompt: pa.RecordBatch
    samples: range

    @property
    def nbytes(self) -> int:
        return int(self.prompt.nbytes)


def slot_batches(parts: Iterable[Prepared], slots: int, images_per_slot: int) -> Iterator[pa.RecordBatch]:
    """Rows of prompts -> batches with a row an image, for a generator with so many slots.

    A prompt that wants more images takes several slots, one that wants fewer leaves a part of its slot unused. Slots
    are filled in order, so that the images of a prompt come one after the other.
    """
    stream = (
        slot
        for part in parts
        for i, images in enumerate(part.columns.column(IMAGES).to_pylist())
        for slot in slots_of(part.columns.slice(i, 1), images, images_per_slot)
    )
    while filled := list(islice(stream, slots)):
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
