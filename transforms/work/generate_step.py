"""The model step of `vqbeam generate`: prompts to codes to pictures and, where a CLIP is given, to scores."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from models import find
from models.bart.generator import TokenGenerator
from models.bart.options import SAMPLING
from models.bart.request import TokenRequest
from models.bart.text import TextEncoder
from models.clip.scorer import ClipScorer, open_clip
from models.image_tokenizer import ImageTokenizer
from models.uniforms import uniforms
from transforms.batch import (
    ATTENTION_MASK,
    CLIP_SCORE,
    ENCODING,
    HEIGHT,
    INPUT_IDS,
    PIXELS,
    PROMPT,
    SAMPLE,
    SLOT,
    WIDTH,
    code_dtype,
    fixed_lists,
    to_rows,
)
from transforms.work.step import ModelSettings

USED_UP = (INPUT_IDS, ATTENTION_MASK, SLOT, "images")  # of no use behind the step


@dataclass(frozen=True)
class GeneratorSettings:
    """Which models, and how they are run; every value is resolved.

    `bart` and `clip` are names as `vqgan.name` is; the device, threads and cache of `vqgan` serve all, its dtype the
    BART too unless `dtype` is given. A batch is `prompts` places for `pictures` each. `guided` is false where every
    prompt has guidance 1.
    """

    bart: str
    vqgan: ModelSettings
    prompts: int
    pictures: int
    guided: bool = True
    clip: str | None = None
    dtype: str | None = None

    def open_text(self) -> TextEncoder:
        """The text tokenizer beside the BART."""
        return find(self.bart, self.vqgan.cache_dir).bart.text_encoder()

    def open_generator(self, codebook_size: int) -> TokenGenerator:
        """Load the BART onto the device."""
        model = self.vqgan
        return TokenGenerator(
            find(self.bart, model.cache_dir).bart.load(),
            codebook_size=codebook_size,
            prompts_per_batch=self.prompts,
            pictures_per_prompt=self.pictures,
            device=model.device,
            dtype=self.dtype or model.dtype,
            threads=model.threads,
            guided=self.guided,
        )

    def open_clip(self) -> ClipScorer | None:
        """Load the CLIP onto the device, where there is to be one."""
        if self.clip is None:
            return None
        checkpoint = find(self.clip, self.vqgan.cache_dir).clip
        return open_clip(checkpoint, device=self.vqgan.device, threads=self.vqgan.threads)


@dataclass
class GenerateStep:
    """Rows of `preparing_prompts.picture_batches` gain `encoding`, `pixels`, `width`, `height` and, with a CLIP,
    `clip_score` float32; the columns that only the generator reads are dropped."""

    settings: GeneratorSettings
    generator: TokenGenerator | None = field(default=None, repr=False)
    codec: ImageTokenizer | None = field(default=None, repr=False)
    clip: ClipScorer | None = field(default=None, repr=False)

    @property
    def batch_size(self) -> int:
        """Pictures at once."""
        return self.settings.prompts * self.settings.pictures

    def setup(self) -> None:
        """Load all weights."""
        self.codec = self.codec or self.settings.vqgan.open()
        self.generator = self.generator or self.settings.open_generator(self.codec.spec.codebook_size)
        self.clip = self.clip or self.settings.open_clip()

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        codec, generator = self.codec, self.generator
        if codec is None or generator is None:
            raise RuntimeError("a step is called before its setup()")
        codes = draw(generator, batch)
        pixels = paint(codec, codes)
        rows = len(pixels)
        batch = batch.drop_columns([name for name in USED_UP if name in batch.schema.names])
        batch = batch.append_column(ENCODING, fixed_lists(codes.astype(code_dtype(codec.spec.codebook_size))))
        batch = batch.append_column(WIDTH, pa.array(np.full(rows, pixels.shape[2], np.int32)))
        batch = batch.append_column(HEIGHT, pa.array(np.full(rows, pixels.shape[1], np.int32)))
        if self.clip is not None:
            scores = score(self.clip, pixels, batch.column(PROMPT).to_pylist())
            batch = batch.append_column(CLIP_SCORE, pa.array(scores, pa.float32()))
        return batch.append_column(PIXELS, fixed_lists(pixels))


def draw(
    generator: TokenGenerator, batch: pa.RecordBatch, prefix: np.ndarray | None = None, keep: int = 0
) -> np.ndarray:
    """Codes int32 [N, T] for the N pictures of a batch, each from its own random numbers.

    The first `keep` codes of `prefix`, int [N, T], are taken as they are.
    """
    slots = batch.column(SLOT).to_numpy()
    starts = np.flatnonzero(np.diff(slots, prepend=-1))  # the first picture of each place
    within = np.arange(len(slots)) - starts[slots]
    drawn = np.zeros((len(starts), generator.pictures_per_prompt, generator.length))
    names = (batch.column(name).to_pylist() for name in ("seed", "key", SAMPLE))
    for slot, place, seed, key, sample in zip(slots, within, *names, strict=True):
        drawn[slot, place] = uniforms(seed, key, sample, generator.length)
    options = {name: batch.column(name).to_numpy()[starts] for name in SAMPLING}
    input_ids, mask = (to_rows(batch.column(name))[starts] for name in (INPUT_IDS, ATTENTION_MASK))
    given, kept = np.zeros(drawn.shape, np.int64), np.full(len(starts), keep)
    if prefix is not None:
        given[slots, within] = prefix
    return generator.generate(TokenRequest(input_ids, mask, drawn, options, given, kept))[slots, within]


def paint(codec: ImageTokenizer, codes: np.ndarray) -> np.ndarray:
    """Codes [N, T] -> uint8 [N, H, W, 3], as many at once as the codec takes."""
    size = codec.batch_size
    return np.concatenate([codec.decode(codes[start : start + size]) for start in range(0, len(codes), size)])


def score(clip: ClipScorer, pixels: np.ndarray, prompts: list[str]) -> np.ndarray:
    """The cosine of each picture and its prompt, float32 [N]; a few pictures are made ready in memory at a time."""
    parts = []
    with ThreadPoolExecutor(clip.threads, "vqbeam-clip") as pool:
        for start in range(0, len(pixels), clip.batch_size):
            part = slice(start, start + clip.batch_size)
            images = np.stack(list(pool.map(clip.preprocess, pixels[part])))
            parts.append(clip.scores(images, prompts[part]))
    return np.concatenate(parts)


def picture_texts(batch: pa.RecordBatch, model_name: str) -> list[Mapping[str, str]]:
    """What the PNG of each row says of its making."""
    names = (PROMPT, "seed", *SAMPLING, SAMPLE, "key")
    return [{name: str(row[name]) for name in names} | {"model": model_name} for row in batch.select(names).to_pylist()]
