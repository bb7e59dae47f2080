"""`vqbeam rank` inside a shard: pictures with captions in, a table of their CLIP scores out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa

from models.clip.pixels import ClipPixels
from transforms.batch import CLIP_PIXELS, CLIP_SCORE, IMAGE, IMAGE_STRUCT
from transforms.engine.resources import Resources
from transforms.errors import RowFiltered
from transforms.images import ImageLimits
from transforms.inputs import InputSchema
from transforms.outputs.layout import Columns, SinkTarget
from transforms.outputs.table import TableSink
from transforms.work.prepare import Fetch, Prepared, PrepareImages, Refusal, full_batches, refusal_of
from transforms.work.score_step import ClipSettings, ScoreStep, decode_for_clip
from transforms.work.work import Work

TOO_LOW = "min_clip_score"  # the filter's name in the counts


@dataclass(frozen=True)
class Rank(Work):
    """`preprocess` is that of the CLIP. Rows that score less than `min_clip_score` are filtered; `keep_images` writes
    the files of the pictures, too, as they came."""

    clip: ClipSettings
    preprocess: ClipPixels
    limits: ImageLimits
    min_clip_score: float | None = None
    keep_images: bool = False

    @property
    def device(self) -> str:
        return self.clip.device

    def columns(self, schema: InputSchema) -> Columns:
        return [
            ("key", pa.string()),
            ("caption", schema.caption_type),
            (CLIP_SCORE, pa.float32()),
            *([(IMAGE, IMAGE_STRUCT)] if self.keep_images else []),
            ("original_width", pa.int32()),
            ("original_height", pa.int32()),
        ]

    def preparer(self, schema: InputSchema, fetch: Fetch, pools: Resources) -> PrepareImages:
        decode = partial(decode_for_clip, limits=self.limits, preprocess=self.preprocess)
        return PrepareImages(
            decode,
            schema,
            fetch,
            pools.decode_pool,
            pools.fetch_pool,
            require_caption=True,
            keep_files=self.keep_images,
        )

    @property
    def rows_prepared(self) -> int | None:
        """As many as the CLIP takes at once where files are kept: of those that rows only name, the reader knows no
        sizes."""
        return self.clip.batch_size if self.keep_images else None

    def batches(self, parts: Iterable[Prepared], size: int) -> Iterator[pa.RecordBatch]:
        return full_batches(parts, size, CLIP_PIXELS)

    def step(self, device: str) -> ScoreStep:
        return ScoreStep(replace(self.clip, device=device))

    def after(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch | Refusal]:
        for batch in batches:
            low = self._too_low(batch)
            for i in np.flatnonzero(low).tolist():
                yield refusal_of(batch, i, "score", RowFiltered(TOO_LOW))
            if not low.all():
                yield batch.filter(pa.array(~low))

    def sink(self, target: SinkTarget) -> TableSink:
        return TableSink(target)

    def _too_low(self, batch: pa.RecordBatch) -> np.ndarray:
        """bool [N]; compared as what is written, in float32."""
        if self.min_clip_score is None:
            return np.zeros(batch.num_rows, bool)
        low: np.ndarray = batch.column(CLIP_SCORE).to_numpy() < np.float32(self.min_clip_score)
        return low
