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
    GRID_H,
    GRID_W,
    KEY,
    ORIGINAL_HEIGHT,
    ORIGINAL_WIDTH,
    PIXELS,
    VIEW,
    code_dtype,
    code_list,
    fixed_lists,
    to_images,
    to_rows,
    varying_lists,
)
from transforms.image_options import ImageOptions
from transforms.images import decode_image
from transforms.inputs.request import InputSchema
from transforms.outputs.layout import Columns, SinkTarget
from transforms.outputs.table import TokenSink
from transforms.views import MOST, Views, decode_views
from transforms.work.one_shape import batches_of_one_shape, grid_of, in_order, with_grids
from transforms.work.prepare import Fetch, Pools, Prepared, PrepareImages, Preparer, Refusal, full_batches, with_views
from transforms.work.step import ModelSettings, TokenizerStep
from transforms.work.work import Work, output_columns

OF_VIEWS, OF_GRIDS = (VIEW, CROP), (GRID_H, GRID_W)
WRITTEN = (KEY, CAPTION, ENCODING, *OF_GRIDS, *OF_VIEWS, ORIGINAL_WIDTH, ORIGINAL_HEIGHT)


PIXELS_PREPARED = 64 << 20  # of the images of a batch as it was read, 192 MiB
ANY_SIZE_PREPARED = 4  # images that keep their size, of which each may have as many pixels as are allowed


@dataclass(frozen=True)
class Encode(Work):
    """`image.size` is the resolution of the model; with `image.by_row` grids differ. With `views` a row of the input
    becomes several."""

    model: ModelSettings
    image: ImageOptions
    spec: TokenizerSpec
    require_caption: bool = False
    views: Views | None = None

    def columns(self, schema: InputSchema) -> Columns:
        codes = code_list(self.spec.codebook_size, self.spec.codes_per_image)
        absent = (*(() if self.views else OF_VIEWS), *(() if self.image.by_row else OF_GRIDS))
        if self.image.by_row:
            codes = pa.list_(codes.value_type)
        return output_columns(WRITTEN, absent, caption=schema.caption_type, encoding=codes)

    def preparer(self, schema: InputSchema, fetch: Fetch, pools: Pools) -> Preparer:
        decode = partial(decode_image, options=self.image)
        images = PrepareImages(decode, schema, fetch, pools, self.require_caption)
        prepare: Preparer = images
        if self.views:
            views = partial(decode_views, options=self.image, views=self.views)
            prepare = with_views(replace(images, views=views), self.views.count)
        return with_grids(prepare, self.spec.factor) if self.image.by_row else prepare

    @property
    def rows_prepared(self) -> int | None:
        """As many views as there would be images without them, and fewer of large ones."""
        views = self.views.count if self.views else 1
        if self.image.by_row is None:
            return MOST // views if self.views else None
        pixels = self.image.by_row.most_pixels
        images = ANY_SIZE_PREPARED if pixels is None else min(MOST, PIXELS_PREPARED // pixels)
        return max(1, images // views)

    def batches(self, parts: Iterable[Prepared], size: int) -> Iterator[pa.RecordBatch]:
        if self.image.by_row:
            return batches_of_one_shape(parts, size, PIXELS)
        return full_batches(parts, size, PIXELS)

    def step(self, device: str) -> EncodeStep | EncodeGridsStep:
        model = replace(self.model, device=device)
        return EncodeGridsStep(model) if self.image.by_row else EncodeStep(model)

    def after(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch | Refusal]:
        yield from in_order(batches) if self.image.by_row else batches

    def sink(self, target: SinkTarget) -> TokenSink:
        return TokenSink(target, self.spec.codebook_size)


class EncodeStep(TokenizerStep):
    """`pixels` -> `encoding`: codes in raster order, fixed-size list of uint16 (int32 past 65,536 codes)."""

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        codes = self.tokenizer.encode(to_images(batch.column(PIXELS)))
        column = fixed_lists(codes.astype(code_dtype(self.tokenizer.spec.codebook_size)))
        return batch.drop_columns([PIXELS]).append_column(ENCODING, column)


class EncodeGridsStep(TokenizerStep):
    """`pixels` of one grid -> `encoding`: the same codes as lists of variable length."""

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        spec = self.tokenizer.spec
        height, width = (side * spec.factor for side in grid_of(batch))
        codes = self.tokenizer.encode(to_rows(batch.column(PIXELS)).reshape(batch.num_rows, height, width, 3))
        column = varying_lists(codes.astype(code_dtype(spec.codebook_size)))
        return batch.drop_columns([PIXELS]).append_column(ENCODING, column)
