"""`vqbeam rank` inside a shard: images with captions in, a table of their CLIP scores out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from models.clip.pixels import ClipPixels
from transforms.batch import (
    CAPTION,
    CLIP_PIXELS,
    CLIP_SCORE,
    IMAGE,
    KEY,
    LONGEST_CAPTION,
    ORIGINAL_HEIGHT,
    ORIGINAL_WIDTH,
    first_caption,
    to_rows,
)
from transforms.errors import RowFiltered, RowRejected
from transforms.image_options import ImageLimits
from transforms.images import DecodedImage, decode_image
from transforms.inputs.request import InputSchema
from transforms.outputs.layout import Columns, SinkTarget
from transforms.outputs.table import TableSink
from transforms.work.prepare import Fetch, Pools, Prepared, PrepareImages, Refusal, full_batches, refusal
from transforms.work.step import ClipSettings
from transforms.work.work import Work, output_columns

if TYPE_CHECKING:
    from models.clip.scorer import ClipScorer

TOO_LOW = "min_clip_score"  # the filter's name in the counts
WRITTEN = (KEY, CAPTION, CLIP_SCORE, IMAGE, ORIGINAL_WIDTH, ORIGINAL_HEIGHT)  # `IMAGE` only with `keep_images`


@dataclass(frozen=True)
class Rank(Work):
    """`preprocess` is that of the CLIP. Rows that score less than `min_clip_score` are filtered; `keep_images` also
    writes the image files as they came."""

    clip: ClipSettings
    preprocess: ClipPixels
    limits: ImageLimits
    min_clip_score: float | None = None
    keep_images: bool = False

    def columns(self, schema: InputSchema) -> Columns:
        return output_columns(WRITTEN, () if self.keep_images else (IMAGE,), caption=schema.caption_type)

    def preparer(self, schema: InputSchema, fetch: Fetch, pools: Pools) -> PrepareImages:
        decode = partial(decode_for_clip, limits=self.limits, preprocess=self.preprocess)
        return PrepareImages(decode, schema, fetch, pools, require_caption=True, keep_files=self.keep_images)

    @property
    def rows_prepared(self) -> int | None:
        """As many as the CLIP takes at once if files are kept, since the reader knows no sizes of files that rows only
        name."""
        return self.clip.batch_size if self.keep_images else None

    def batches(self, parts: Iterable[Prepared], size: int) -> Iterator[pa.RecordBatch]:
        return full_batches(parts, size, CLIP_PIXELS)

    def step(self, device: str) -> ScoreStep:
        return ScoreStep(replace(self.clip, device=device))

    def after(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch | Refusal]:
        if self.min_clip_score is None:
            yield from batches
            return
        least = np.float32(self.min_clip_score)  # as the score is written
        for batch in batches:
            low = batch.column(CLIP_SCORE).to_numpy() < least
            for i in np.flatnonzero(low).tolist():
                yield refusal(batch, i, "score", RowFiltered(TOO_LOW))
            if not low.all():
                yield batch.filter(pa.array(~low))

    def sink(self, target: SinkTarget) -> TableSink:
        return TableSink(target)


@dataclass
class ScoreStep:
    """`clip_pixels` and `caption` -> `clip_score` float32: the cosine of image and caption."""

    clip: ClipSettings

    @property
    def batch_size(self) -> int:
        return self.clip.batch_size

    @cached_property
    def scorer(self) -> ClipScorer:
        return self.clip.open()

    def setup(self) -> None:
        _ = self.scorer

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        rows = to_rows(batch.column(CLIP_PIXELS))
        side = round((rows.shape[1] // 3) ** 0.5)
        captions = [first_caption(caption)[:LONGEST_CAPTION] for caption in batch.column(CAPTION).to_pylist()]
        scores = self.scorer.scores(rows.reshape(-1, 3, side, side), captions)
        return batch.drop_columns([CLIP_PIXELS]).append_column(CLIP_SCORE, pa.array(scores, pa.float32()))


def decode_for_clip(data: bytes, limits: ImageLimits, preprocess: ClipPixels) -> DecodedImage:
    """The bytes of an image file -> the CLIP's view of it, float32 [3, H, W], with the original sizes.

    JPEGs are decoded in full. Raises as `decode_image` does, and `RowRejected` ("too_many_pixels") for a strip so
    narrow that it would not fit into memory once its short side has the model's size.
    """
    image = decode_image(data, limits)
    width, height = preprocess.resized(image.original_width, image.original_height)
    if width * height > limits.max_image_pixels:
        raise RowRejected(
            "too_many_pixels",
            f"{image.original_width} x {image.original_height} pixels, which for the CLIP become "
            f"{width} x {height}; max_image_pixels allows {limits.max_image_pixels:,}",
        )
    return replace(image, pixels=preprocess(image.pixels))
