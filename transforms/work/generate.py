"""`vqbeam generate` inside a shard: prompts in, images out, scored and ranked if there is a CLIP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from models import find
from models.bart.options import SAMPLING, Drawing
from models.bart.request import TokenRequest
from models.bart.text import TextEncoder
from models.clip.text import ClipText
from models.image_tokenizer import ImageTokenizer, TokenizerSpec
from models.uniforms import uniforms
from models.whereabouts import SCORING, tell
from transforms.batch import (
    ATTENTION_MASK,
    CLIP_SCORE,
    ENCODING,
    HEIGHT,
    IMAGES,
    INPUT_IDS,
    KEY,
    PROMPT,
    RANK,
    ROW,
    SAMPLE,
    SEED,
    SLOT,
    WIDTH,
    code_list,
    joined,
    to_rows,
)
from transforms.errors import RowFiltered
from transforms.inputs.options import arrow_type
from transforms.inputs.request import InputSchema
from transforms.ledger.commit import MainObject
from transforms.outputs.layout import Columns, ImageOutput, Sink, SinkTarget, image_columns
from transforms.work.prepare import Fetch, Pools, Prepared, Preparer, Refusal, in_pool, refusal
from transforms.work.prompts import prepare_prompts, slot_batches
from transforms.work.step import ModelSettings, painted
from transforms.work.work import Work, output_columns

if TYPE_CHECKING:
    from models.bart.compiled.decoder import Products
    from models.bart.generator import TokenGenerator
    from models.clip.scorer import ClipScorer

WRITTEN = (KEY, PROMPT, SAMPLE, SEED, ENCODING, *image_columns(), CLIP_SCORE, RANK, WIDTH, HEIGHT)
NOT_BEST = "not_best"  # the filter's name in the counts
USED_UP = (INPUT_IDS, ATTENTION_MASK, SLOT, IMAGES)  # of no use behind the step


@dataclass(frozen=True)
class GeneratorSettings:
    """Which models, and how they are run; every value is resolved.

    `bart` and `clip` are names as `vqgan.name` is; the device, threads and cache of `vqgan` serve all, its dtype the
    BART too unless `dtype` is given. A batch has `slots` for prompts, with `images_per_slot` each. `guided` is false if
    every prompt has guidance 1. `products` is as `TokenGenerator` takes it.
    """

    bart: str
    vqgan: ModelSettings
    slots: int
    images_per_slot: int
    guided: bool = True
    clip: str | None = None
    clip_text: ClipText = "raw"
    dtype: str | None = None
    products: Products = "panels"

    @property
    def batch_size(self) -> int:
        """Images at once."""
        return self.slots * self.images_per_slot

    def on(self, device: str) -> GeneratorSettings:
        """The same on another device."""
        return replace(self, vqgan=replace(self.vqgan, device=device))

    def open_text(self) -> TextEncoder:
        """The text tokenizer beside the BART."""
        return find(self.bart, self.vqgan.cache_dir).bart.text_encoder()

    def open_generator(self, codebook_size: int) -> TokenGenerator:
        """Load the BART onto the device."""
        from models.bart.generator import TokenGenerator  # torch: not for a launcher that refuses the command

        model = self.vqgan
        return TokenGenerator(
            find(self.bart, model.cache_dir).bart.load(),
            codebook_size=codebook_size,
            prompts_per_batch=self.slots,
            images_per_prompt=self.images_per_slot,
            device=model.device,
            dtype=self.dtype or model.dtype,
            threads=model.threads,
            guided=self.guided,
            products=self.products,
        )

    def open_clip(self) -> ClipScorer | None:
        """Load the CLIP onto the device; None without a CLIP."""
        from models.clip.scorer import ClipScorer  # torch: not for a launcher that refuses the command

        if self.clip is None:
            return None
        checkpoint = find(self.clip, self.vqgan.cache_dir).clip
        device, threads = self.vqgan.device, self.vqgan.threads
        return ClipScorer(checkpoint, device=device, threads=threads, clip_text=self.clip_text)


@dataclass(frozen=True)
class Generate(Work):
    """`model_name` is what PNGs call the BART. `keep_best` is of the images of a prompt, None for all."""

    models: GeneratorSettings
    drawing: Drawing
    written: ImageOutput
    model_name: str
    spec: TokenizerSpec
    keep_tokens: bool = False
    keep_best: int | None = None

    @property
    def main(self) -> MainObject:
        return self.written.layout.main

    def columns(self, schema: InputSchema) -> Columns:
        asked = {name.lower() for name in schema.options}
        options = {name: arrow_type(name) for name in SAMPLING if name in asked}
        absent = self.written.absent_columns
        absent |= set() if self.keep_tokens else {ENCODING}
        absent |= set() if self.models.clip is not None else {CLIP_SCORE, RANK}
        types = {
            ENCODING: code_list(self.spec.codebook_size, self.spec.codes_per_image),
            **dict(self.written.layout.columns),
        }
        after_seed = WRITTEN.index(SEED) + 1
        written = (*WRITTEN[:after_seed], *options, *WRITTEN[after_seed:])
        return output_columns(written, absent, **types, **options)

    def preparer(self, schema: InputSchema, fetch: Fetch, pools: Pools) -> Preparer:
        return in_pool(pools.decode, partial(prepare_prompts, text=self.models.open_text(), drawing=self.drawing))

    def batches(self, parts: Iterable[Prepared], size: int) -> Iterator[pa.RecordBatch]:
        return slot_batches(parts, self.models.slots, self.models.images_per_slot)

    def step(self, device: str) -> GenerateStep:
        return GenerateStep(self.models.on(device))

    def after(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch | Refusal]:
        return batches if self.models.clip is None else ranked(batches, self.keep_best)

    def sink(self, target: SinkTarget) -> Sink:
        return self.written.sink(target, partial(png_texts, model_name=self.model_name))


@dataclass
class GenerateStep:
    """Rows of `slot_batches` gain `encoding`, `pixels`, `width`, `height` and, with a CLIP, `clip_score` float32; the
    columns that only the generator reads are dropped."""

    settings: GeneratorSettings

    @property
    def batch_size(self) -> int:
        return self.settings.batch_size

    @cached_property
    def tokenizer(self) -> ImageTokenizer:
        return self.settings.vqgan.open()

    @cached_property
    def generator(self) -> TokenGenerator:
        return self.settings.open_generator(self.tokenizer.spec.codebook_size)

    @cached_property
    def clip(self) -> ClipScorer | None:
        return self.settings.open_clip()

    def setup(self) -> None:
        _ = self.generator, self.clip  # the generator opens the tokenizer

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        codes = draw(self.generator, batch)
        prompts = batch.column(PROMPT).to_pylist()
        batch = batch.drop_columns([name for name in USED_UP if name in batch.schema.names])
        batch, pixels = painted(self.tokenizer, batch, codes)
        if self.clip is None:
            return batch
        return batch.append_column(CLIP_SCORE, pa.array(score(self.clip, pixels, prompts), pa.float32()))


def draw(
    generator: TokenGenerator, batch: pa.RecordBatch, prefix: np.ndarray | None = None, keep: int = 0
) -> np.ndarray:
    """Codes int32 [N, T] for the N images of a batch, each from its own random numbers.

    The first `keep` codes of `prefix`, int [N, T], are taken as they are.
    """
    slots = batch.column(SLOT).to_numpy()
    starts = np.flatnonzero(np.diff(slots, prepend=-1))  # the first image of each slot
    within = np.arange(len(slots)) - starts[slots]
    drawn = np.zeros((len(starts), generator.images_per_prompt, generator.length))
    for slot, number, identity in zip(slots, within, identities(batch), strict=True):
        drawn[slot, number] = uniforms(*identity, generator.length)
    options = {name: batch.column(name).to_numpy()[starts] for name in SAMPLING}
    input_ids, mask = (to_rows(batch.column(name))[starts] for name in (INPUT_IDS, ATTENTION_MASK))
    given, kept = np.zeros(drawn.shape, np.int64), np.full(len(starts), keep)
    if prefix is not None:
        given[slots, within] = prefix
    return generator.generate(TokenRequest(input_ids, mask, drawn, options, given, kept))[slots, within]


def identities(batch: pa.RecordBatch) -> Iterator[tuple[int, str, int]]:
    """Seed, key and sample of each image, from which its random numbers come."""
    return zip(*(batch.column(name).to_pylist() for name in (SEED, KEY, SAMPLE)), strict=True)


def score(clip: ClipScorer, pixels: np.ndarray, prompts: list[str]) -> np.ndarray:
    """The cosine of each image and its prompt, float32 [N]; a few images are preprocessed in memory at a time."""
    parts = []
    with ThreadPoolExecutor(clip.threads, "vqbeam-clip") as pool:
        for start in range(0, len(pixels), clip.batch_size):
            tell(SCORING, start, len(pixels))
            part = slice(start, start + clip.batch_size)
            images = np.stack(list(pool.map(clip.preprocess, pixels[part])))
            parts.append(clip.scores(images, prompts[part]))
    return np.concatenate(parts)


def ranked(batches: Iterable[pa.RecordBatch], keep_best: int | None = None) -> Iterator[pa.RecordBatch | Refusal]:
    """Rows come in with `clip_score`, those of one prompt (`row`) one after the other; they go out with `rank`.

    Of each prompt the rows go out best first, from rank 1, equals by `sample`; past `keep_best` they are filtered.
    A row that cannot win any more goes at once, so that no more is held than what one prompt keeps, and a batch.
    """
    held: pa.RecordBatch | None = None
    for batch in batches:
        done: list[pa.RecordBatch] = []
        for part in _by_row(batch):
            if held is not None and held.column(ROW)[0] != part.column(ROW)[0]:
                done.append(_with_ranks(held))
                held = None
            pool = part if held is None else joined([held, part])
            order = np.lexsort((pool.column(SAMPLE).to_numpy(), -pool.column(CLIP_SCORE).to_numpy())).tolist()
            # by slices: taking from lists builds an index eight times the size of the pixels
            held = joined([pool.slice(i, 1) for i in order[:keep_best]])
            for i in order[keep_best:] if keep_best is not None else ():
                yield refusal(pool, i, "rank", RowFiltered(NOT_BEST))
        if done:
            yield joined(done)
    if held is not None:
        yield _with_ranks(held)


def _by_row(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
    """A batch cut between prompts."""
    rows = batch.column(ROW).to_numpy()
    starts = [0, *(np.flatnonzero(np.diff(rows)) + 1).tolist(), len(rows)]
    return [batch.slice(start, stop - start) for start, stop in pairwise(starts)]


def _with_ranks(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.append_column(RANK, pa.array(np.arange(1, batch.num_rows + 1, dtype=np.int32)))


def png_texts(batch: pa.RecordBatch, model_name: str) -> list[Mapping[str, str]]:
    """The text of each row's PNG: how it was made."""
    names = (PROMPT, SEED, *SAMPLING, SAMPLE, KEY)
    return [{name: str(row[name]) for name in names} | {"model": model_name} for row in batch.select(names).to_pylist()]
