"""CLIP scores for pipelines of your own: the step of `vqbeam rank` through Beam's `RunInference`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import RunInference

from models import find
from models.clip.scorer import read_clip_parts
from transforms.batch import CLIP_PIXELS, CLIP_SCORE, first_caption
from transforms.errors import RowFiltered, RowRejected, UsageError
from transforms.images import ImageLimits
from transforms.inference.images import (
    CACHE_DIR,
    GOOD,
    REJECTED,
    Outcome,
    Row,
    RowArray,
    StepHandler,
    dead_letter,
    image_bytes,
)
from transforms.inference.notebook import check_notebook
from transforms.work.score_step import ClipSettings, ScoreStep, decode_for_clip

check_notebook()


class ScoreImages(beam.PTransform):
    """Dicts with the bytes of an image file and a caption -> the same dicts with their CLIP score.

        with beam.Pipeline() as p:
            scored = p | beam.io.ReadFromParquet("photos/*.parquet") | ScoreImages("hf://openai/clip-vit-base-patch32")
            scored.rows | beam.Filter(lambda row: row["clip_score"] > 0.25) | ...

    `clip_score`, a float in the place of one that may be there, is the cosine of the picture and the caption as it is;
    of a list of captions the first that is not blank. `image_column` holds bytes, or the `{bytes, path}` of Hugging
    Face datasets. Further `limits` (`max_image_bytes`, `min_image_size`, ...) are those of `ImageLimits`; rows that its
    filters take out are counted in the metric vqbeam/rows_filtered. The CLIP computes in float32; batches, device and
    threads as with `EncodeImages`.

    Raises `UsageError` for options that make no sense, in the worker for a column that holds no bytes or no text.
    """

    def __init__(
        self,
        clip: str = "emoji",
        *,
        image_column: str = "image",
        caption_column: str = "caption",
        batch_size: int = 32,
        device: str = "auto",
        threads: int | None = None,
        cache_dir: str = CACHE_DIR,
        **limits: Any,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        self._clip = ClipSettings(clip, cache_dir, device, batch_size, threads or 0)
        self._image_column = image_column
        self._caption_column = caption_column
        self._limits = ImageLimits(**limits)

    def expand(self, rows: beam.PCollection) -> Outcome:
        read = ReadPairs(self._clip, self._image_column, self._caption_column, self._limits)
        pairs = rows | "Read pairs" >> beam.ParDo(read).with_outputs(REJECTED, main=GOOD)
        beside = partial(caption_for_step, column=self._caption_column)
        scored = (
            pairs[GOOD]
            | "Score" >> RunInference(StepHandler(ScoreStep(self._clip), CLIP_PIXELS, CLIP_SCORE, beside))
            | "Add scores" >> beam.MapTuple(lambda row, score: {**row, CLIP_SCORE: float(score)})
        )
        return Outcome(scored, pairs[REJECTED])


class ReadPairs(beam.DoFn):
    """A dict -> (dict, what the CLIP sees of its picture); pairs that cannot be scored go to the dead letters."""

    def __init__(self, clip: ClipSettings, image_column: str, caption_column: str, limits: ImageLimits) -> None:
        self._clip = clip
        self._image_column = image_column
        self._caption_column = caption_column
        self._limits = limits

    def setup(self) -> None:
        self._preprocess, _ = read_clip_parts(find(self._clip.name, self._clip.cache_dir).clip)

    def process(self, row: Row) -> Iterable[RowArray | beam.pvalue.TaggedOutput]:
        try:
            caption_of(row, self._caption_column)
            picture = decode_for_clip(image_bytes(row, self._image_column), self._limits, self._preprocess)
        except RowFiltered:
            Metrics.counter("vqbeam", "rows_filtered").inc()
        except RowRejected as cause:
            yield dead_letter(row, cause)
        else:
            yield row, picture.pixels


def caption_of(row: Row, column: str) -> str:
    """What is scored. Raises `RowRejected` where there is no text, `UsageError` where there is something else."""
    cell = row.get(column)
    texts = list(cell) if isinstance(cell, list | tuple | np.ndarray) else [cell]
    if not all(text is None or isinstance(text, str) for text in texts):
        found = type(cell).__name__
        raise UsageError(f"column {column!r} holds {found}, no text or texts; name another with caption_column=")
    caption = first_caption(texts)
    if not caption:
        raise RowRejected("missing_caption", f"no text in column {column!r}; the row has {', '.join(map(str, row))}")
    return caption


def caption_for_step(row: Row, column: str) -> Mapping[str, str]:
    text = caption_of(row, column)
    return {"caption": text.encode("utf-8", "replace").decode()}  # Arrow takes no half of a surrogate pair
