"""The model step of `vqbeam vary`: pictures or codes to other codes, by one of three methods, and to pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
import pyarrow as pa

from models.bart.generator import TokenGenerator
from models.errors import ConfigError
from models.image_tokenizer import ImageTokenizer, LatentTokenizer
from models.vqgan.variations import gaussians, nearest_codes, neighbour_count, redrawn, spread, trained_codes
from transforms.batch import (
    CODES,
    ENCODING,
    HEIGHT,
    PIXELS,
    ROW,
    SAMPLE,
    WIDTH,
    code_dtype,
    fixed_lists,
    to_images,
    to_rows,
)
from transforms.work.generate_step import USED_UP, GeneratorSettings, draw, paint
from transforms.work.step import ModelStep


class Variation(Protocol):
    """How codes are varied: what `open` makes of it, once a process, gives the codes of a batch."""

    name: ClassVar[str]

    def open(self, codec: ImageTokenizer) -> Varied: ...


class Varied(Protocol):
    def codes(self, batch: pa.RecordBatch) -> np.ndarray:
        """`pixels` or `codes`, `key`, `seed`, `row` and `sample` of N pictures -> codes int32 [N, T]."""


@dataclass(frozen=True)
class LatentNoise:
    """Gaussian noise on the latents before they are quantised; on the code vectors where codes come in.

    Its standard deviation in each component is `strength` times the spread of the codebook: at 1 as large as what tells
    one code from another.
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
        if self.deviation == 0:  # as they came, also where two codes have one vector
            return source_codes(self.codec, batch)
        if CODES in batch.schema.names:
            codes = to_rows(batch.column(CODES))
            grid = self.codec.spec.grid
            latents = self.codec.codebook[codes].reshape(len(codes), grid, grid, -1)
        else:
            firsts, of = distinct_rows(batch)
            pictures = to_images(batch.column(PIXELS))[firsts]
            size = self.codec.batch_size
            parts = [self.between.latents(pictures[start : start + size]) for start in range(0, len(pictures), size)]
            latents = np.concatenate(parts)[of]
        names = (batch.column(name).to_pylist() for name in ("seed", "key", SAMPLE))
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
        names = (batch.column(name).to_pylist() for name in ("seed", "key", SAMPLE))
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
    """Rows of `preparing_prompts.picture_batches` with `pixels` or `codes` -> with `encoding`, `pixels`, `width` and
    `height`. `pictures` are at most in a batch, by default as many as the VQGAN takes."""

    variation: Variation = field(default_factory=lambda: CodeNoise(0.0))
    pictures: int = 0
    varied: Varied | None = field(default=None, repr=False)

    @property
    def batch_size(self) -> int:
        return self.pictures or self.model.batch_size

    def setup(self) -> None:
        super().setup()
        self.varied = self.varied or self.variation.open(self.loaded())

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        codec = self.loaded()
        if self.varied is None:
            raise RuntimeError("a step is called before its setup()")
        codes = self.varied.codes(batch)
        pixels = paint(codec, codes)
        rows = len(pixels)
        batch = batch.drop_columns([name for name in (PIXELS, CODES, *USED_UP) if name in batch.schema.names])
        batch = batch.append_column(ENCODING, fixed_lists(codes.astype(code_dtype(codec.spec.codebook_size))))
        batch = batch.append_column(WIDTH, pa.array(np.full(rows, pixels.shape[2], np.int32)))
        batch = batch.append_column(HEIGHT, pa.array(np.full(rows, pixels.shape[1], np.int32)))
        return batch.append_column(PIXELS, fixed_lists(pixels))


def source_codes(codec: ImageTokenizer, batch: pa.RecordBatch) -> np.ndarray:
    """The codes int32 [N, T] that N pictures are variations of; each picture of the input is encoded once."""
    if CODES in batch.schema.names:
        return to_rows(batch.column(CODES))
    firsts, of = distinct_rows(batch)
    pictures = to_images(batch.column(PIXELS))[firsts]
    size = codec.batch_size
    return np.concatenate([codec.encode(pictures[start : start + size]) for start in range(0, len(pictures), size)])[of]


def distinct_rows(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """Where each row of the input comes first among the pictures of a batch, and which of those each picture is of."""
    _, firsts, of = np.unique(batch.column(ROW).to_numpy(), return_index=True, return_inverse=True)
    return firsts, of
