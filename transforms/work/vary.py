"""`vqbeam vary` inside a shard: pictures or codes in, several pictures of each out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from transforms.batch import CODES, ENCODING, HEIGHT, PIXELS, SAMPLE, WIDTH, code_dtype, first_caption
from transforms.engine.resources import Resources
from transforms.images import ImageOptions, decode_image
from transforms.inputs import InputSchema
from transforms.inputs.provenance import check_codebook
from transforms.ledger.commit import MainObject
from transforms.ledger.types import Source
from transforms.outputs.layout import Columns, ImageOutput, Sink, SinkTarget
from transforms.work.prepare import Fetch, PrepareCodes, Prepared, PrepareImages, Preparer
from transforms.work.preparing_variations import PrepareCaptioned, PrepareVariations
from transforms.work.prompts import picture_batches
from transforms.work.step import ModelSettings
from transforms.work.vary_step import Completion, Variation, VaryStep
from transforms.work.work import Work


@dataclass(frozen=True)
class Vary(Work):
    """`options` has the `images` of each row of the input and the `seed`; for a completion also how codes are drawn.
    `image` says how pictures of the input are read. `expected_codebook` is the one that codes of the input must come
    from, None for any. `about` is what PNGs say beside what differs between them."""

    model: ModelSettings
    variation: Variation
    options: Mapping[str, int | float]
    image: ImageOptions
    written: ImageOutput
    codes_per_image: int
    codebook_size: int
    about: Mapping[str, str]
    keep_tokens: bool = False
    expected_codebook: str | None = None

    @property
    def device(self) -> str:
        return self.model.device

    @property
    def main(self) -> MainObject:
        return self.written.layout.main

    def columns(self, schema: InputSchema) -> Columns:
        code = pa.from_numpy_dtype(code_dtype(self.codebook_size))
        tokens = [(ENCODING, pa.list_(code, self.codes_per_image))] if self.keep_tokens else []
        return [
            ("key", pa.string()),
            ("caption", schema.caption_type),
            (SAMPLE, pa.int32()),
            ("seed", pa.int64()),
            *tokens,
            *self.written.layout.columns,
            (WIDTH, pa.int32()),
            (HEIGHT, pa.int32()),
        ]

    def check_source(self, source: Source) -> None:
        check_codebook(source, self.expected_codebook)

    def preparer(self, schema: InputSchema, fetch: Fetch, pools: Resources) -> Preparer:
        captioned = isinstance(self.variation, Completion)
        decode = partial(decode_image, options=self.image)
        sources: Preparer
        if schema.kind == "codes":
            payload = CODES
            sources = PrepareCodes(self.codes_per_image, self.codebook_size, captioned)
        else:
            payload = PIXELS
            sources = PrepareImages(decode, schema, fetch, pools.decode_pool, pools.fetch_pool, captioned)
        if isinstance(self.variation, Completion):
            sources = PrepareCaptioned(sources, self.variation.models.open_text(), pools.decode_pool)
        return PrepareVariations(sources, payload, self.options)

    def batches(self, parts: Iterable[Prepared], size: int) -> Iterator[pa.RecordBatch]:
        if isinstance(self.variation, Completion):
            models = self.variation.models
            return picture_batches(parts, models.prompts, models.pictures)
        return picture_batches(parts, size, 1)

    def step(self, device: str) -> VaryStep:
        model = replace(self.model, device=device)
        if not isinstance(self.variation, Completion):
            return VaryStep(model, variation=self.variation)
        models = replace(self.variation.models, vqgan=model)
        return VaryStep(
            model, variation=replace(self.variation, models=models), pictures=models.prompts * models.pictures
        )

    def sink(self, target: SinkTarget) -> Sink:
        return self.written.sink(target, self._chunks)

    def _chunks(self, batch: pa.RecordBatch) -> list[Mapping[str, str]]:
        """What a PNG says of its making."""
        return [
            {"caption": first_caption(row["caption"])}
            | {name: str(row[name]) for name in ("seed", SAMPLE, "key")}
            | dict(self.about)
            for row in batch.select(("caption", "seed", SAMPLE, "key")).to_pylist()
        ]
