"""`vqbeam evaluate` inside a shard: images in, a table of their codes and of how near their reconstructions are out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from models.image_tokenizer import ImageTokenizer, TokenizerSpec
from transforms.batch import (
    CAPTION,
    CLIP_COSINE,
    CLIP_ORIGINAL,
    CLIP_RECONSTRUCTION,
    ENCODING,
    KEY,
    ORIGINAL_HEIGHT,
    ORIGINAL_WIDTH,
    PIXELS,
    RECONSTRUCTION,
    code_dtype,
    code_list,
    fixed_lists,
    to_rows,
)
from transforms.image_options import ImageOptions
from transforms.images import DecodedImage, decode_image
from transforms.inputs.request import InputSchema
from transforms.outputs.evaluation import Evaluated, EvaluationSink, model_columns, suffixes
from transforms.outputs.layout import Columns, SinkTarget
from transforms.work.prepare import Fetch, Pools, Prepared, PrepareImages, full_batches
from transforms.work.step import ClipSettings, ModelSettings, in_batches
from transforms.work.work import Work, output_columns

if TYPE_CHECKING:
    from models.clip.scorer import ClipScorer

OF_A_ROW = (KEY, CAPTION, ORIGINAL_WIDTH, ORIGINAL_HEIGHT)


def written(models: int, *, clip: bool) -> tuple[str, ...]:
    """The names of the columns that are written for so many models."""
    columns = (column for suffix in suffixes(models) for column in model_columns(suffix, pa.null(), int(clip)))
    return (*OF_A_ROW, *(name for name, _ in columns))


@dataclass(frozen=True)
class Candidate:
    """A tokenizer that is measured, and how images become its own; `image.size` is its resolution."""

    model: ModelSettings
    image: ImageOptions
    spec: TokenizerSpec


@dataclass(frozen=True)
class Evaluate(Work):
    """All candidates see each image, so that a row is measured for all of them or for none. `clip_size` is the length
    of the vectors of `clip`."""

    candidates: tuple[Candidate, ...]
    clip: ClipSettings | None = None
    clip_size: int = 0
    require_caption: bool = False

    def columns(self, schema: InputSchema) -> Columns:
        columns = output_columns(OF_A_ROW, caption=schema.caption_type)
        for suffix, candidate in zip(self.suffixes, self.candidates, strict=True):
            codes = code_list(candidate.spec.codebook_size, candidate.spec.codes_per_image)
            columns += model_columns(suffix, codes, self.clip_size)
        return columns

    @property
    def suffixes(self) -> list[str]:
        return suffixes(len(self.candidates))

    def preparer(self, schema: InputSchema, fetch: Fetch, pools: Pools) -> PrepareImages:
        decode = partial(decode_for_all, options=tuple(candidate.image for candidate in self.candidates))
        return PrepareImages(decode, schema, fetch, pools, self.require_caption)

    def batches(self, parts: Iterable[Prepared], size: int) -> Iterator[pa.RecordBatch]:
        return full_batches(parts, size, PIXELS)

    def step(self, device: str) -> EvaluateStep:
        models = [replace(candidate.model, device=device) for candidate in self.candidates]
        return EvaluateStep(models, self.clip and replace(self.clip, device=device))

    def sink(self, target: SinkTarget) -> EvaluationSink:
        sizes = [candidate.spec.codebook_size for candidate in self.candidates]
        return EvaluationSink(target, list(map(Evaluated, self.suffixes, sizes)))


@dataclass
class EvaluateStep:
    """`pixels` -> for each model `encoding`, the part of `pixels` that is its own, and their `reconstruction`; with a
    CLIP its vectors of both, and their cosine."""

    models: list[ModelSettings]
    clip: ClipSettings | None = None

    @property
    def batch_size(self) -> int:
        return self.models[0].batch_size

    @cached_property
    def tokenizers(self) -> list[ImageTokenizer]:
        return [model.open() for model in self.models]

    @cached_property
    def scorer(self) -> ClipScorer | None:
        return self.clip.open() if self.clip else None

    def setup(self) -> None:
        _ = self.tokenizers, self.scorer

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        pixels = to_rows(batch.column(PIXELS))
        batch = batch.drop_columns([PIXELS])
        start = 0
        for suffix, tokenizer in zip(suffixes(len(self.models)), self.tokenizers, strict=True):
            side = tokenizer.spec.resolution
            part = np.ascontiguousarray(pixels[:, start : start + 3 * side * side])
            start += part.shape[1]
            images = part.reshape(-1, side, side, 3)
            codes = tokenizer.encode(images)
            made = tokenizer.decode(codes)
            columns = {
                ENCODING: fixed_lists(codes.astype(code_dtype(tokenizer.spec.codebook_size))),
                PIXELS: fixed_lists(images),
                RECONSTRUCTION: fixed_lists(made),
            }
            if self.scorer is not None:
                columns |= likeness(self.scorer, images, made)
            for name, column in columns.items():
                batch = batch.append_column(name + suffix, column)
        return batch


def likeness(clip: ClipScorer, images: np.ndarray, made: np.ndarray) -> dict[str, pa.Array]:
    """What a CLIP makes of images and their reconstructions, both uint8 [N, H, W, 3]."""
    with ThreadPoolExecutor(clip.threads, "vqbeam-clip") as pool:

        def vectors(part: np.ndarray) -> np.ndarray:
            return clip.vectors(np.stack(list(pool.map(clip.preprocess, part))))

        first, second = np.split(in_batches(vectors, np.concatenate([images, made]), clip.batch_size), 2)
    cosines = (first * second).sum(1)
    return {
        CLIP_COSINE: pa.array(cosines, pa.float32()),
        CLIP_ORIGINAL: fixed_lists(first),
        CLIP_RECONSTRUCTION: fixed_lists(second),
    }


def decode_for_all(data: bytes, options: Sequence[ImageOptions]) -> DecodedImage:
    """The bytes of an image file -> what each of the models sees of it, uint8, one after the other in one row.

    Raises as `decode_image` does, if one of them cannot be made.
    """
    images = [decode_image(data, each) for each in options]
    if len(images) == 1:
        return images[0]
    notices = tuple(dict.fromkeys(notice for image in images for notice in image.notices))
    pixels = np.concatenate([image.pixels.reshape(-1) for image in images])
    return replace(images[0], pixels=pixels, notices=notices)
