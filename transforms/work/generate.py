"""`vqbeam generate` inside a shard: prompts in, pictures out, ranked where a CLIP is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from models.bart.options import SAMPLING, Drawing
from transforms.batch import CLIP_SCORE, ENCODING, HEIGHT, PROMPT, RANK, SAMPLE, WIDTH, code_dtype
from transforms.engine.resources import Resources
from transforms.inputs import InputSchema
from transforms.inputs.options import arrow_type
from transforms.ledger.commit import MainObject
from transforms.outputs.layout import Columns, ImageOutput, Sink, SinkTarget
from transforms.work.generate_step import GenerateStep, GeneratorSettings, picture_texts
from transforms.work.prepare import Fetch, Prepared, Refusal
from transforms.work.prompts import PreparePrompts, picture_batches
from transforms.work.ranking import ranked
from transforms.work.work import Work


@dataclass(frozen=True)
class Generate(Work):
    """`model_name` is what PNGs call the BART. `keep_best` is of the pictures of a prompt, None for all."""

    models: GeneratorSettings
    drawing: Drawing
    written: ImageOutput
    model_name: str
    codes_per_image: int
    codebook_size: int
    keep_tokens: bool = False
    keep_best: int | None = None

    @property
    def device(self) -> str:
        return self.models.vqgan.device

    @property
    def main(self) -> MainObject:
        return self.written.layout.main

    def columns(self, schema: InputSchema) -> Columns:
        code = pa.from_numpy_dtype(code_dtype(self.codebook_size))
        tokens = [(ENCODING, pa.list_(code, self.codes_per_image))] if self.keep_tokens else []
        asked = {name.lower() for name in schema.options}
        options = [(name, arrow_type(name)) for name in SAMPLING if name in asked]
        scores = [(CLIP_SCORE, pa.float32()), (RANK, pa.int32())] if self.models.clip is not None else []
        return [
            ("key", pa.string()),
            (PROMPT, pa.string()),
            (SAMPLE, pa.int32()),
            ("seed", pa.int64()),
            *options,
            *tokens,
            *self.written.layout.columns,
            *scores,
            (WIDTH, pa.int32()),
            (HEIGHT, pa.int32()),
        ]

    def preparer(self, schema: InputSchema, fetch: Fetch, pools: Resources) -> PreparePrompts:
        return PreparePrompts(self.models.open_text(), self.drawing, pools.decode_pool)

    def batches(self, parts: Iterable[Prepared], size: int) -> Iterator[pa.RecordBatch]:
        return picture_batches(parts, self.models.prompts, self.models.pictures)

    def step(self, device: str) -> GenerateStep:
        return GenerateStep(replace(self.models, vqgan=replace(self.models.vqgan, device=device)))

    def after(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch | Refusal]:
        if self.models.clip is None:
            return batches
        return ranked(batches, CLIP_SCORE, self.keep_best)

    def sink(self, target: SinkTarget) -> Sink:
        return self.written.sink(target, partial(picture_texts, model_name=self.model_name))
