"""`vqbeam decode` inside a shard: codes in, images out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from models.image_tokenizer import AnyGridTokenizer, TokenizerSpec
from transforms.batch import (
    CAPTION,
    CODES,
    HEIGHT,
    KEY,
    PASS_PREFIX,
    PIXELS,
    SAMPLE,
    WIDTH,
    fixed_lists,
    to_rows,
    varying_lists,
)
from transforms.inputs.provenance import check_codebook
from transforms.inputs.request import InputSchema
from transforms.ledger.commit import MainObject
from transforms.ledger.types import Source
from transforms.outputs.layout import Columns, ImageOutput, Sink, SinkTarget, image_columns
from transforms.work.one_shape import batches_of_one_shape, grid_of, in_order
from transforms.work.prepare import (
    Fetch,
    Pools,
    Prepared,
    Preparer,
    Refusal,
    full_batches,
    in_pool,
    prepare_codes,
)
from transforms.work.step import ModelSettings, TokenizerStep
from transforms.work.work import Work, output_columns

MOVED = image_columns()  # the input may have them, too
WRITTEN = (KEY, CAPTION, *MOVED)


@dataclass(frozen=True)
class Decode(Work):
    """`expected_codebook` is the codebook that tokens must come from, None for any. With `by_row` each row says its
    grid itself, in the columns `GRID_H` and `GRID_W`."""

    model: ModelSettings
    written: ImageOutput
    spec: TokenizerSpec
    expected_codebook: str | None = None
    by_row: bool = False

    @property
    def main(self) -> MainObject:
        return self.written.layout.main

    def columns(self, schema: InputSchema) -> Columns:
        absent, image = self.written.absent_columns, dict(self.written.layout.columns)
        return output_columns(WRITTEN, absent, caption=schema.caption_type, **image)

    def check_source(self, source: Source) -> None:
        check_codebook(source, self.expected_codebook)

    def preparer(self, schema: InputSchema, fetch: Fetch, pools: Pools) -> Preparer:
        return in_pool(pools.decode, partial(prepare_codes, spec=self.spec, by_row=self.by_row))

    def batches(self, parts: Iterable[Prepared], size: int) -> Iterator[pa.RecordBatch]:
        return map(_numbered, (batches_of_one_shape if self.by_row else full_batches)(parts, size, CODES))

    def step(self, device: str) -> DecodeStep | DecodeGridsStep:
        model = replace(self.model, device=device)
        return DecodeGridsStep(model) if self.by_row else DecodeStep(model)

    def after(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch | Refusal]:
        yield from in_order(batches) if self.by_row else batches

    def sink(self, target: SinkTarget) -> Sink:
        return self.written.sink(target)


class DecodeStep(TokenizerStep):
    """`codes` -> `pixels`."""

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        pixels = self.tokenizer.decode(to_rows(batch.column(CODES)))
        return batch.drop_columns([CODES]).append_column(PIXELS, fixed_lists(pixels))


class DecodeGridsStep(TokenizerStep):
    """`codes` of one grid -> `pixels` as lists of variable length, with `width` and `height`."""

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        tokenizer = self.tokenizer
        assert isinstance(tokenizer, AnyGridTokenizer), "the command has looked at its spec"
        pixels = tokenizer.decode_grid(to_rows(batch.column(CODES)), grid_of(batch))
        count, height, width, _ = pixels.shape
        batch = batch.drop_columns([CODES]).append_column(PIXELS, varying_lists(pixels, pa.LargeListType))
        for name, value in ((WIDTH, width), (HEIGHT, height)):
            batch = batch.append_column(name, pa.array(np.full(count, value, np.int32)))
        return batch


def _numbered(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Add the number of each image among those of its prompt or input, if the table has it as generate and vary write
    it. Their file names hold it, and so do decode's."""
    index = batch.schema.get_field_index(PASS_PREFIX + SAMPLE)
    if index < 0 or not pt.is_integer(batch.column(index).type):
        return batch
    return batch.append_column(SAMPLE, batch.column(index).fill_null(0))
