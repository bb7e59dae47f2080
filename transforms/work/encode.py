"""`vqbeam encode` inside a shard: images in, a table of codes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from models.image_tokenizer import TokenizerSpec
from transforms.batch import (
    CAPTION,
    ENCODING,
    KEY,
    ORIGINAL_HEIGHT,
    ORIGINAL_WIDTH,
    PIXELS,
    code_dtype,
    code_list,
    fixed_lists,
    to_images,
)
from transforms.images import ImageOptions, decode_image
from transforms.inputs.request import InputSchema
from transforms.outputs.layout import Columns, SinkTarget
from transforms.outputs.table import TokenSink
from transforms.work.prepare import Fetch, Pools, Prepared, PrepareImages, full_batches
from transforms.work.step import ModelSettings, TokenizerStep
from transforms.work.work import Work, output_columns

WRITTEN = (KEY, CAPTION, ENCODING, ORIGINAL_WIDTH, ORIGINAL_HEIGHT)


@dataclass(frozen=True)
class Encode(Work):
    """`image.size` is the resolution of the model."""

    model: ModelSettings
    image: ImageOptions
    spec: TokenizerSpec
    require_caption: bool = False

    def columns(self, schema: InputSchema) -> Columns:
        codes = code_list(self.spec.codebook_size, self.spec.codes_per_image)
        return output_columns(WRITTEN, caption=schema.caption_type, encoding=codes)

    def preparer(self, schema: InputSchema, fetch: Fetch, pools: Pools) -> PrepareImages:
        decode = partial(decode_image, options=self.image)
        return PrepareImages(decode, schema, fetch, pools, self.require_caption)

    def batches(self, parts: Iterable[Prepared], size: int) -> Iterator[pa.RecordBatch]:
        return full_batches(parts, size, PIXELS)

    def step(self, device: str) -> EncodeStep:
        return EncodeStep(replace(self.model, device=device))

    def sink(self, target: SinkTarget) -> TokenSink:
        return TokenSink(target, self.spec.codebook_size)


class EncodeStep(TokenizerStep):
    """`pixels` -> `encoding`: codes in raster order, fixed-size list of uint16 (int32 past 65,536 codes)."""

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        codes = self.tokenizer.encode(to_images(batch.column(PIXELS)))
        column = fixed_lists(codes.astype(code_dtype(self.tokenizer.spec.codebook_size)))
        return batch.drop_columns([PIXELS]).append_column(ENCODING, column)
