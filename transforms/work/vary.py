"""`vqbeam vary` inside a shard: images or codes in, several images of each out.

Codes are changed by one of three methods, then painted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Protocol, cast

import numpy as np
import pyarrow as pa

from models.image_tokenizer import ImageTokenizer, LatentTokenizer, TokenizerSpec
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
from transforms.image_options import ImageOptions
from transforms.images import decode_image
from transforms.inputs.options import arrow_type
from transforms.inputs.provenance import check_codebook
from transforms.inputs.request import InputSchema
from transforms.ledger.commit import MainObject
from transforms.ledger.types import Source
from transforms.outputs.layout import Columns, ImageOutput, Sink, SinkTarget, image_columns
from transforms.work.generate import USED_UP, GeneratorSettings, draw, identities
from transforms.work.prepare import Fetch, Pools, Prepared, PrepareImages, Preparer, in_pool, prepare_codes
from transforms.work.prompts import slot_batches, with_captions
from transforms.work.step import ModelSettings, TokenizerStep, in_batches, painted
from transforms.work.work import Work, output_columns

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
    spec: TokenizerSpec
    about: Mapping[str, str]
    keep_tokens: bool = False
    expected_codebook: str | None = None

    @property
    def main(self) -> MainObject:
        return self.written.layout.main

    def columns(self, schema: InputSchema) -> Columns:
        absent = self.written.absent_columns | (set() if self.keep_tokens else {ENCODING})
        codes = code_list(self.spec.codebook_size, self.spec.codes_per_image)
        return output_columns(
            WRITTEN, absent, caption=schema.caption_type, encoding=codes, **dict(self.written.layout.columns)
        )

    def check_source(self, source: Source) -> None:
        check_codebook(source, self.expected_codebook)

    def preparer(self, schema: InputSchema, fetch: Fetch, pools: Pools) -> Preparer:
        models = self.variation.models if isinstance(self.variation, Completion) else None
        captioned = models is not None
        prepare: Preparer
        if schema.kind == "codes":
            payload = CODES
            prepare = in_pool(pools.decode, partial(prepare_codes, spec=self.spec, require_caption=captioned))
        else:
            payload = PIXELS
            prepare = PrepareImages(partial(decode_image, options=self.image), schema, fetch, pools, captioned)
        if models:
            prepare = with_captions(prepare, models.open_text(), pools.decode)
        return with_variations(prepare, payload, self.options)

    def batches(self, parts: Iterable[Prepared], size: int) -> Iterator[pa.RecordBatch]:
        if isinstance(self.variation, Completion):
            models = self.variation.models
            return slot_batches(parts, models.slots, models.images_per_slot)
        return slot_batches(parts, size, 1)

    def step(self, device: str) -> VaryStep:
        variation = self.variation
        if isinstance(variation, Completion):
            variation = replace(variation, models=variation.models.on(device))
        return VaryStep(replace(self.model, device=device), variation)

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


def with_variations(prepare: Preparer, payload: str, options: Mapping[str, int | float]) -> Preparer:
    """`prepare` with its array as the column `payload`; in the counts every row stands for `options["images"]` images.

    `options` (names of `models/bart/options.py`) become columns, as `slot_batches` and `draw` read them.
    """

    def submit(batch: pa.RecordBatch, first_row: int) -> Callable[[], Prepared]:
        waiting = prepare(batch, first_row)
        return lambda: varied(waiting())

    def varied(prepared: Prepared) -> Prepared:
        columns = prepared.columns
        if prepared.arrays:
            columns = columns.append_column(payload, fixed_lists(np.stack(prepared.arrays)))
        for name, value in options.items():
            columns = columns.append_column(name, pa.array([value] * columns.num_rows, arrow_type(name)))
        images = int(options[IMAGES])
        return replace(
            prepared,
            columns=columns,
            arrays=[],
            refusals=[refused for refused in prepared.refusals for _ in range(images)],
            rows_read=prepared.rows_read * images,
            missing_captions=prepared.missing_captions * images,
        )

    return submit


# `pixels` or `codes`, `key`, `seed`, `row` and `sample` of N images -> codes int32 [N, T]
VaryCodes = Callable[[pa.RecordBatch], np.ndarray]


class Variation(Protocol):
    """How codes are varied; a frozen dataclass that travels to the workers."""

    def open(self, tokenizer: ImageTokenizer) -> VaryCodes:
        """Make what each batch needs, once a process."""


@dataclass(frozen=True)
class LatentNoise:
    """Gaussian noise on the latents before they are quantised, or on the code vectors if the input is codes.

    Its standard deviation in each component is `strength` times the spread of the codebook: at 1 as large as the
    differences between codes.
    """

    strength: float

    def open(self, tokenizer: ImageTokenizer) -> VaryCodes:
        """The tokenizer is a `LatentTokenizer` as well."""
        deviation, between = self.strength * spread(tokenizer.codebook), cast(LatentTokenizer, tokenizer)

        def vary(batch: pa.RecordBatch) -> np.ndarray:
            if deviation == 0:  # as they came, also if two codes have one vector
                return source_codes(tokenizer, batch)
            if CODES in batch.schema.names:
                codes = to_rows(batch.column(CODES))
                grid = tokenizer.spec.grid
                latents = tokenizer.codebook[codes].reshape(len(codes), grid, grid, -1)
            else:
                latents = for_distinct_images(between.latents, batch, tokenizer.batch_size)
            for latent, identity in zip(latents, identities(batch), strict=True):
                noise = gaussians(*identity, latent.size).reshape(latent.shape)
                latent += (deviation * noise).astype(np.float32)
            return between.quantise(latents)

        return vary


@dataclass(frozen=True)
class CodeNoise:
    """A share of `strength` of the codes drawn again among their neighbours (`models/vqgan/variations.py`)."""

    strength: float

    def open(self, tokenizer: ImageTokenizer) -> VaryCodes:
        count = neighbour_count(len(trained_codes(tokenizer.codebook)))
        neighbours = nearest_codes(tokenizer.codebook, count)

        def vary(batch: pa.RecordBatch) -> np.ndarray:
            rows = zip(source_codes(tokenizer, batch), identities(batch), strict=True)
            return np.stack([redrawn(codes, neighbours, self.strength, *identity) for codes, identity in rows])

        return vary


@dataclass(frozen=True)
class Completion:
    """The first `keep_rows` rows of codes kept, the rest drawn by a DALL·E BART for the caption."""

    models: GeneratorSettings
    keep_rows: int

    def open(self, tokenizer: ImageTokenizer) -> VaryCodes:
        generator = self.models.open_generator(tokenizer.spec.codebook_size)
        keep = self.keep_rows * tokenizer.spec.grid

        def vary(batch: pa.RecordBatch) -> np.ndarray:
            codes = source_codes(tokenizer, batch)
            return codes if keep == codes.shape[1] else draw(generator, batch, codes, keep)

        return vary


@dataclass
class VaryStep(TokenizerStep):
    """Rows of `slot_batches` with `pixels` or `codes` -> with `encoding`, `pixels`, `width` and `height`. A batch has
    at most as many as the BART draws at once, without one as the tokenizer takes."""

    variation: Variation

    @property
    def batch_size(self) -> int:
        variation = self.variation
        return variation.models.batch_size if isinstance(variation, Completion) else self.model.batch_size

    @cached_property
    def vary(self) -> VaryCodes:
        return self.variation.open(self.tokenizer)

    def setup(self) -> None:
        _ = self.vary

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        codes = self.vary(batch)
        batch = batch.drop_columns([name for name in (PIXELS, CODES, *USED_UP) if name in batch.schema.names])
        return painted(self.tokenizer, batch, codes)[0]


def source_codes(tokenizer: ImageTokenizer, batch: pa.RecordBatch) -> np.ndarray:
    """The codes int32 [N, T] that N images are variations of."""
    if CODES in batch.schema.names:
        return to_rows(batch.column(CODES))
    return for_distinct_images(tokenizer.encode, batch, tokenizer.batch_size)


def for_distinct_images(call: Callable[[np.ndarray], np.ndarray], batch: pa.RecordBatch, size: int) -> np.ndarray:
    """The results of `call` on `pixels`, [N, ...] for N rows; images of one row of the input are read once."""
    _, firsts, of = np.unique(batch.column(ROW).to_numpy(), return_index=True, return_inverse=True)
    return in_batches(call, to_images(batch.column(PIXELS))[firsts], size)[of]
