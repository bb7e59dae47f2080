"""`vqbeam encode` inside a shard: pictures in, a table of codes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from transforms.batch import ENCODING, PIXELS, code_dtype
from transforms.engine.resources import Resources
from transforms.images import ImageOptions, decode_image
from transforms.inputs import InputSchema
from transforms.outputs.layout import Columns, SinkTarget
from transforms.outputs.table import TokenSink
from transforms.work.prepare import Fetch, Prepared, PrepareImages, full_batches
from transforms.work.step import EncodeStep, ModelSettings
from transforms.work.work import Work


@dataclass(frozen=True)
class Encode(Work):
    """`image.size` is the resolution of the model."""

    model: ModelSettings
    image: ImageOptions
    codes_per_image: int
    codebook_size: int
    require_caption: bool = False

    @property
    def device(self) -> str:
        return self.model.device

    def columns(self, schema: InputSchema) -> Columns:
        code = pa.from_numpy_dtype(code_dtype(self.codebook_size))
        return [
            ("key", pa.string()),
            ("caption", schema.caption_type),
            (ENCODING, pa.list_(code, self.codes_per_image)),
            ("original_width", pa.int32()),
            ("original_height", pa.int32()),
        ]

    def preparer(self, schema: InputSchema, fetch: Fetch, pools: Resources) -> PrepareImages:
        decode = partial(decode_image, options=self.image)
        return PrepareImages(decode, schema, fetch, pools.decode_pool, pools.fetch_pool, self.require_caption)

    def batches(self, parts: Iterable[Prepared], size: int) -> Iterator[pa.RecordBatch]:
        return full_batches(parts, size, PIXELS)

    def step(self, device: str) -> EncodeStep:
        return EncodeStep(replace(self.model, device=device))

    def sink(self, target: SinkTarget) -> TokenSink:
        return TokenSink(target, self.codebook_size)
