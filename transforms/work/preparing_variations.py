"""From pictures or codes as they were prepared to rows that `vqbeam vary` makes several pictures of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np
import pyarrow as pa

from models.bart.text import EncodedText, TextEncoder
from transforms.batch import ATTENTION_MASK, INPUT_IDS, ROW, first_caption, fixed_lists
from transforms.errors import RowRejected
from transforms.inputs.options import arrow_type
from transforms.inputs.rows import too_long
from transforms.work.prepare import Prepared, Preparer, Refusal, refusal
from transforms.work.prompts import CUT, empty_text


class PrepareVariations:
    """Around `PrepareImages` or `PrepareCodes`: their array becomes the column `payload`, and every row stands for
    `options["images"]` pictures in the counts. `options` (names of `models/bart/options.py`) become columns, as
    `preparing_prompts.picture_batches` and `generate_step.draw` read them."""

    def __init__(self, sources: Preparer, payload: str, options: Mapping[str, int | float]) -> None:
        self._sources = sources
        self._payload = payload
        self._options = options

    @property
    def seconds(self) -> float:
        """Of threads, decoding pictures or checking codes."""
        return self._sources.seconds

    def submit(self, batch: pa.RecordBatch, first_row: int) -> Callable[[], Prepared]:
        waiting = self._sources.submit(batch, first_row)
        return lambda: self._varied(waiting())

    def cancel(self) -> None:
        self._sources.cancel()

    def _varied(self, prepared: Prepared) -> Prepared:
        columns = prepared.columns
        if prepared.arrays:
            columns = columns.append_column(self._payload, fixed_lists(np.stack(prepared.arrays)))
        for name, value in self._options.items():
            columns = columns.append_column(name, pa.array([value] * columns.num_rows, arrow_type(name)))
        images = int(self._options["images"])
        return replace(
            prepared,
            columns=columns,
            arrays=[],
            refusals=[refused for refused in prepared.refusals for _ in range(images)],
            rows_read=prepared.rows_read * images,
            missing_captions=prepared.missing_captions * images,
        )


class PrepareCaptioned:
    """Around `PrepareImages` or `PrepareCodes` that require a caption: adds what a DALL·E BART reads of it.

    Of several captions the first that is not blank is taken. Rows whose caption leaves nothing to read are rejected.
    """

    def __init__(self, sources: Preparer, text: TextEncoder, pool: Executor) -> None:
        self._sources = sources
        self._text = text
        self._pool = pool

    @property
    def seconds(self) -> float:
        """Of threads, decoding pictures or checking codes."""
        return self._sources.seconds

    def submit(self, batch: pa.RecordBatch, first_row: int) -> Callable[[], Prepared]:
        waiting = self._sources.submit(batch, first_row)
        captions = [first_caption(cell) for cell in batch.column("caption").to_pylist()]
        long = [too_long(len(caption.encode("utf-8", "replace"))) for caption in captions]
        read = ["" if error else caption for caption, error in zip(captions, long, strict=True)]
        encoding = self._pool.submit(self._text.encode, read, batch.column("key").to_pylist())

        def result() -> Prepared:
            prepared, encoded = waiting(), encoding.result()
            unread: dict[int, Refusal] = {}
            for i in (prepared.columns.column(ROW).to_numpy() - first_row).tolist():
                error = long[i]
                if error is None and encoded.empty[i]:
                    error = empty_text("caption", captions[i])
                if error is not None:
                    unread[i] = refusal(batch, i, first_row, "read", RowRejected(*error))
            return _with_texts(prepared, encoded, first_row, unread)

        return result

    def cancel(self) -> None:
        self._sources.cancel()


def _with_texts(prepared: Prepared, encoded: EncodedText, first_row: int, unread: Mapping[int, Refusal]) -> Prepared:
    """The rows that are in `unread` moved to the refusals, the others with their texts."""
    rows = prepared.columns.column(ROW).to_numpy() - first_row
    kept = np.array([row not in unread for row in rows.tolist()], bool)
    good = rows[kept]
    columns = prepared.columns.filter(pa.array(kept))
    columns = columns.append_column(INPUT_IDS, fixed_lists(encoded.input_ids[good]))
    columns = columns.append_column(ATTENTION_MASK, fixed_lists(encoded.attention_mask[good]))
    arrays = [array for array, keep in zip(prepared.arrays, kept.tolist(), strict=True) if keep]
    refusals = sorted([*prepared.refusals, *unread.values()], key=lambda refused: refused.row)
    cut = int(encoded.truncated[good].sum())
    notices = {**prepared.notices, **({CUT: cut} if cut else {})}
    return replace(prepared, columns=columns, arrays=arrays, refusals=refusals, notices=notices)
