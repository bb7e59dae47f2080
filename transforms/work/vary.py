"""`vqbeam vary` inside a shard: images or codes in, several images of each out.

Codes are changed by one of three methods, then painted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Protocol

import numpy as np
import pyarrow as pa

from models.bart.generator import TokenGenerator
from models.errors import ConfigError
from models.image_tokenizer import ImageTokenizer, LatentTokenizer
from models.vqgan.variations import gaussians, nearest_codes, neighbour_count, redrawn, spread, trained_codes
from transforms.batch import (
    CAPTION,
    CODES,
    ENCODING,
    HEIGHT,
    IMAGES,
    KEY,
    PIXELS,
    ROW,
    SAMPLE,
    SEED,
    WIDTH,
    code_list,
    first_caption,
    fixed_lists,
    to_images,
    to_rows,
)
from transforms.images import ImageOptions, decode_image
from transforms.inputs.options import arrow_type
from transforms.inputs.provenance import check_codebook
from transforms.inputs.request import InputSchema
from transforms.ledger.commit import MainObject
from transforms.ledger.types import Source
from transforms.outputs.layout import Columns, ImageOutput, Sink, SinkTarget, image_columns
from transforms.work.generate import USED_UP, GeneratorSettings, draw
from transforms.work.prepare import Fetch, PrepareCodes, Prepared, PrepareImages, Preparer
from transforms.work.prompts import PrepareCaptioned, slot_batches
from transforms.work.step import NOT_SET_UP, ModelSettings, ModelStep, painted
from transforms.work.work import Pools, Work, output_columns

MOVED = (SAMPLE, SEED, ENCODING, *image_columns(), WIDTH, HEIGHT)  # the input may have them, too
WRITTEN = (KEY, CAPTION, *MOVED)


@dataclass(frozen=True)
class Vary(Work):
    """`options` are `images`, the number for each row of the input, and `seed`; for a completion also how codes are
    drawn. `image` says how images of the input are read. `expected_codebook` is the one that codes of the input must
    come from, None for any. `about` is the text that is the same in all PNGs."""

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
        absent = self.written.absent_columns | (set() if self.keep_tokens else {ENCODING})
        codes, image = code_list(self.codebook_size, self.codes_per_image), dict(self.written.layout.columns)
        return output_columns(WRITTEN, absent, caption=schema.caption_type, encoding=codes, **image)

    def check_source(self, source: Source) -> None:
        check_codebook(source, self.expected_codebook)

    def preparer(self, schema: InputSchema, fetch: Fetch, pools: Pools) -> Preparer:
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
            return slot_batches(parts, models.slots, models.images_per_slot)
        return slot_batches(parts, size, 1)

    def step(self, device: str) -> VaryStep:
        model = replace(self.model, device=device)
        if not isinstance(self.variation, Completion):
            return VaryStep(model, variation=self.variation)
        models = replace(self.variation.models, vqgan=model)
        return VaryStep(model, variation=replace(self.variation, models=models), images=models.batch_size)

    def sink(self, target: SinkTarget) -> Sink:
        return self.written.sink(target, self._texts)

    def _texts(self, batch: pa.RecordBatch) -> list[Mapping[str, str]]:
        """The text of each row's PNG: how it was made."""
        return [
            {CAPTION: first_caption(row[CAPTION])}
            | {name: str(row[name]) for name in (SEED, SAMPLE, KEY)}
            | dict(self.about)
            for row in batch.select((CAPTION, SEED, SAMPLE, KEY)).to_pylist()
        ]


class PrepareVariations:
    """Around `PrepareImages` or `PrepareCodes`: their array becomes the column `payload`, and every row stands for
    `options["images"]` images in the counts. `options` (names of `models/bart/options.py`) become columns, as
    `slot_batches` and `draw` read them."""

    def __init__(self, sources: Preparer, payload: str, options: Mapping[str, int | float]) -> None:
        self._sources = sources
        self._payload = payload
        self._options = options

    @property
    def seconds(self) -> float:
        """Of threads, decoding images or checking codes."""
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
        images = int(self._options[IMAGES])
        return replace(
            prepared,
            columns=columns,
            arrays=[],
            refusals=[refused for refused in prepared.refusals for _ in range(images)],
            rows_read=prepared.rows_read * images,
            missing_captions=prepared.missing_captions * images,
        )


class Variation(Protocol):
    """How codes are varied. `open`, called once a process, returns the object that varies the codes of a batch."""

    name: ClassVar[str]

    def open(self, codec: ImageTokenizer) -> Varied: ...


class Varied(Protocol):
    def codes(self, batch: pa.RecordBatch) -> np.ndarray:
        """`pixels` or `codes`, `key`, `seed`, `row` and `sample` of N images -> codes int32 [N, T]."""


@dataclass(frozen=True)
class LatentNoise:
    """Gaussian noise on the latents before they are quantised, or on the code vectors if the input is codes.

    Its standard deviation in each component is `strength` times the spread of the codebook: at 1 as large as the
    differences between codes.
    """

    strength: float
    name: ClassVar[str] = "latent"

    def open(self, codec: ImageTokenizer) -> Varied:
        if not isinstance(codec, LatentTokenizer):
            raise ConfigError(
                f"method latent needs latents, and {codec.spec.name} gives codes only; choose method codes"
            )
        return _LatentNoise(codec, codec, self.strength * spread(codec.codebook))


@dataclass(frozen=True)
class _LatentNoise:
    codec: ImageTokenizer
    between: LatentTokenizer
    deviation: float

    def codes(self, batch: pa.RecordBatch) -> np.ndarray:
        if self.deviation == 0:  # as they came, also if two codes have one vector
            return source_codes(self.codec, batch)
        if CODES in batch.schema.names:
            codes = to_rows(batch.column(CODES))
            grid = self.codec.spec.grid
            latents = self.codec.codebook[codes].reshape(len(codes), grid, grid, -1)
        else:
            firsts, of = distinct_rows(batch)
            images = to_images(batch.column(PIXELS))[firsts]
            size = self.codec.batch_size
            parts = [self.between.latents(images[start : start + size]) for start in range(0, len(images), size)]
            latents = np.concatenate(parts)[of]
        names = (batch.column(name).to_pylist() for name in (SEED, KEY, SAMPLE))
        shape = latents.shape[1:]
        for i, (seed, key, sample) in enumerate(zip(*names, strict=True)):
            noise = gaussians(seed, key, sample, latents[i].size).reshape(shape)
            latents[i] += (self.deviation * noise).astype(np.float32)
        return self.between.quantise(latents)


@dataclass(frozen=True)
class CodeNoise:
    """A share of `strength` of the codes drawn again among their neighbours (`models/vqgan/variations.py`)."""

    strength: float
    name: ClassVar[str] = "codes"

    def open(self, codec: ImageTokenizer) -> Varied:
        count = neighbour_count(len(trained_codes(codec.codebook)))
        return _CodeNoise(codec, self.strength, nearest_codes(codec.codebook, count))


@dataclass(frozen=True)
class _CodeNoise:
    codec: ImageTokenizer
    strength: float
    neighbours: np.ndarray

    def codes(self, batch: pa.RecordBatch) -> np.ndarray:
        names = (batch.column(name).to_pylist() for name in (SEED, KEY, SAMPLE))
        rows = zip(source_codes(self.codec, batch), *names, strict=True)
        return np.stack([redrawn(codes, self.neighbours, self.strength, *which) for codes, *which in rows])


@dataclass(frozen=True)
class Completion:
    """The first `keep_rows` rows of codes kept, the rest drawn by a DALL·E BART for the caption."""

    models: GeneratorSettings
    keep_rows: int
    name: ClassVar[str] = "model"

    def open(self, codec: ImageTokenizer) -> Varied:
        generator = self.models.open_generator(codec.spec.codebook_size)
        return _Completion(codec, generator, self.keep_rows * codec.spec.grid)


@dataclass(frozen=True)
class _Completion:
    codec: ImageTokenizer
    generator: TokenGenerator
    keep: int

    def codes(self, batch: pa.RecordBatch) -> np.ndarray:
        codes = source_codes(self.codec, batch)
        return codes if self.keep == codes.shape[1] else draw(self.generator, batch, codes, self.keep)


@dataclass
class VaryStep(ModelStep):
    """Rows of `slot_batches` with `pixels` or `codes` -> with `encoding`, `pixels`, `width` and `height`. A batch has
    at most `images`, by default as many as the VQGAN takes."""

    variation: Variation = field(default_factory=lambda: CodeNoise(0.0))
    images: int = 0
    varied: Varied | None = field(default=None, repr=False)

    @property
    def batch_size(self) -> int:
        return self.images or self.model.batch_size

    def setup(self) -> None:
        super().setup()
        self.varied = self.varied or self.variation.open(self.loaded())

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        codec = self.loaded()
        if self.varied is None:
            raise RuntimeError(NOT_SET_UP)
        codes = self.varied.codes(batch)
        batch = batch.drop_columns([name for name in (PIXELS, CODES, *USED_UP) if name in batch.schema.names])
        return painted(codec, batch, codes)[0]


def source_codes(codec: ImageTokenizer, batch: pa.RecordBatch) -> np.ndarray:
    """The codes int32 [N, T] that N images are variations of; each image of the input is encoded once."""
    if CODES in batch.schema.names:
        return to_rows(batch.column(CODES))
    firsts, of = distinct_rows(batch)
    images = to_images(batch.column(PIXELS))[firsts]
    size = codec.batch_size
    return np.concatenate([codec.encode(images[start : start + size]) for start in range(0, len(images), size)])[of]


def distinct_rows(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """The index of the first image of each row of the input in a batch, and for each image the number of its row."""
    _, firsts, of = np.unique(batch.column(ROW).to_numpy(), return_index=True, return_inverse=True)
    return firsts, of
