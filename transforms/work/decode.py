"""`vqbeam decode` inside a shard: codes in, images out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa
import pyarrow.types as pt

from models.image_tokenizer import TokenizerSpec
from transforms.batch import CAPTION, CODES, KEY, PASS_PREFIX, PIXELS, SAMPLE, fixed_lists, to_rows
from transforms.inputs.provenance import check_codebook
from transforms.inputs.request import InputSchema
from transforms.ledger.commit import MainObject
from transforms.ledger.types import Source
from transforms.outputs.layout import Columns, ImageOutput, Sink, SinkTarget, image_columns
from transforms.work.prepare import Fetch, Pools, Prepared, Preparer, full_batches, in_pool, prepare_codes
from transforms.work.step import ModelSettings, TokenizerStep
from transforms.work.work import Work, output_columns

MOVED = image_columns()  # the input may have them, too
WRITTEN = (KEY, CAPTION, *MOVED)


@dataclass(frozen=True)
class Decode(Work):
    """`expected_codebook` is the codebook that tokens must come from, None for any."""

    model: ModelSettings
    written: ImageOutput
    spec: TokenizerSpec
    expected_codebook: str | None = None

    @property
    def main(self) -> MainObject:
        return self.written.layout.main

    def columns(self, schema: InputSchema) -> Columns:
        absent, image = self.written.absent_columns, dict(self.written.layout.columns)
        return output_columns(WRITTEN, absent, caption=schema.caption_type, **image)

    def check_source(self, source: Source) -> None:
        check_codebook(source, self.expected_codebook)

    def preparer(self, schema: InputSchema, fetch: Fetch, pools: Pools) -> Preparer:
        return in_pool(pools.decode, partial(prepare_codes, spec=self.spec))

    def batches(self, parts: Iterable[Prepared], size: int) -> Iterator[pa.RecordBatch]:
        return map(_numbered, full_batches(parts, size, CODES))

    def step(self, device: str) -> DecodeStep:
        return DecodeStep(replace(self.model, device=device))

    def sink(self, target: SinkTarget) -> Sink:
        return self.written.sink(target)


class DecodeStep(TokenizerStep):
    """`codes` -> `pixels`."""

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        pixels = self.tokenizer.decode(to_rows(batch.column(CODES)))
        return batch.drop_columns([CODES]).append_column(PIXELS, fixed_lists(pixels))


def _numbered(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Add the number of each image among those of its prompt or input, if the table has it as generate and vary write
    it. Their file names hold it, and so do decode's."""
    index = batch.schema.get_field_index(PASS_PREFIX + SAMPLE)
    if index < 0 or not pt.is_integer(batch.column(index).type):
        return batch
    return batch.append_column(SAMPLE, batch.column(index).fill_null(0))
