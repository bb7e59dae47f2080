"""`vqbeam encode` inside a shard: images in, a table of codes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from models.image_tokenizer import TokenizerSpec
from transforms.batch import (
    CAPTION,
    CROP,
    ENCODING,
    KEY,
    ORIGINAL_HEIGHT,
    ORIGINAL_WIDTH,
    PIXELS,
    VIEW,
    code_dtype,
    code_list,
    fixed_lists,
    to_images,
)
from transforms.images import ImageOptions, decode_image
from transforms.inputs.request import InputSchema
from transforms.outputs.layout import Columns, SinkTarget
from transforms.outputs.table import TokenSink
from transforms.views import MOST, Views, decode_views
from transforms.work.prepare import Fetch, Pools, Prepared, PrepareImages, Preparer, full_batches, with_views
from transforms.work.step import ModelSettings, TokenizerStep
from transforms.work.work import Work, output_columns

OF_VIEWS = (VIEW, CROP)
WRITTEN = (KEY, CAPTION, ENCODING, *OF_VIEWS, ORIGINAL_WIDTH, ORIGINAL_HEIGHT)


@dataclass(frozen=True)
class Encode(Work):
    """`image.size` is the resolution of the model. With `views` a row of the input becomes several."""

    model: ModelSettings
    image: ImageOptions
    spec: TokenizerSpec
    require_caption: bool = False
    views: Views | None = None

    def columns(self, schema: InputSchema) -> Columns:
        codes = code_list(self.spec.codebook_size, self.spec.codes_per_image)
        absent = () if self.views else OF_VIEWS
        return output_columns(WRITTEN, absent, caption=schema.caption_type, encoding=codes)

    def preparer(self, schema: InputSchema, fetch: Fetch, pools: Pools) -> Preparer:
        decode = partial(decode_image, options=self.image)
        prepare = PrepareImages(decode, schema, fetch, pools, self.require_caption)
        if self.views is None:
            return prepare
        views = partial(decode_views, options=self.image, views=self.views)
        return with_views(replace(prepare, views=views), self.views.count)

    @property
    def rows_prepared(self) -> int | None:
        """As many views as there would be images without them."""
        return MOST // self.views.count if self.views else None

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
