"""Transforms for images in pipelines of your own: rows are dicts, in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import RunInference

from models import find
from models.clip.scorer import read_clip_parts
from models.image_tokenizer import TokenizerSpec
from transforms.batch import (
    CAPTION,
    CLIP_PIXELS,
    CLIP_SCORE,
    CODES,
    ENCODING,
    ORIGINAL_HEIGHT,
    ORIGINAL_WIDTH,
    PIXELS,
    first_caption,
)
from transforms.errors import RowFiltered, RowRejected, UsageError
from transforms.images import ImageLimits, ImageOptions, Resize, decode_image
from transforms.inference.handlers import (
    CACHE_DIR,
    GOOD,
    REJECTED,
    Outcome,
    Row,
    RowArray,
    StepHandler,
    check_batch_size,
    rejected,
)
from transforms.outputs.image_files import check_format, encode_image
from transforms.work.decode import DecodeStep
from transforms.work.encode import EncodeStep
from transforms.work.prepare import Decode, fitting_codes
from transforms.work.rank import ScoreStep, decode_for_clip
from transforms.work.step import ClipSettings, ModelSettings


class EncodeImages(beam.PTransform):
    """Dicts with the bytes of an image file -> dicts with its VQGAN codes.

        with beam.Pipeline() as p:
            encoded = (
                p
                | beam.io.ReadFromParquet("photos/*.parquet")
                | EncodeImages("hf://dalle-mini/vqgan_imagenet_f16_16384", image_column="jpg", batch_size=64)
            )
            encoded.rows | beam.Map(lambda row: print(row["caption"], row["encoding"]))
            encoded.rejected | beam.Map(lambda bad: print(bad["row"]["key"], bad["error"], bad["message"]))

    `image_column` holds bytes, or the `{bytes, path}` of Hugging Face datasets; it is dropped unless `keep_image`.
    Added are `encoding`, uint16 (int32 for codebooks past 65,536) [codes_per_image] in raster order, and
    `original_width` and `original_height` unless the row has them. Every other column stays. `resize` and further
    `image_options` (`max_image_bytes`, `min_image_size`, ...) are those of `ImageOptions`; rows that its filters take
    out are counted in the metric vqbeam/rows_filtered.

    The model is loaded once in each worker process. Batches have at most `batch_size` rows and are computed at that
    full size, so a row's codes do not depend on its neighbours. Each worker resolves `device` and `dtype` "auto" by
    itself: name them if workers differ. `threads` are those within an operation on a CPU, by default torch's own:
    torch rounds by them, so name them if workers have other numbers of cores.

    Raises `UsageError` for options that make no sense, in the worker for a column that holds no bytes.
    """

    def __init__(
        self,
        model: str = "emoji",
        *,
        image_column: str = "image",
        keep_image: bool = False,
        resize: Resize = "center_crop",
        batch_size: int = 32,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        backend: str = "torch",
        cache_dir: str = CACHE_DIR,
        **image_options: Any,
    ) -> None:
        super().__init__()
        self._model = settings(model, cache_dir, backend, device, dtype, batch_size, threads)
        self._column = image_column
        self._keep = keep_image
        self._options = {"resize": resize, **image_options}
        ImageOptions(size=1, **self._options)

    def expand(self, rows: beam.PCollection) -> Outcome:
        read = ReadImages(partial(square_decoder, self._model, self._options), self._column, self._keep, sizes=True)
        images = rows | "Read images" >> beam.ParDo(read).with_outputs(REJECTED, main=GOOD)
        encoded = (
            images[GOOD]
            | "Encode" >> RunInference(StepHandler(EncodeStep(self._model), PIXELS, ENCODING))
            | "Add codes" >> beam.MapTuple(lambda row, codes: {**row, ENCODING: codes})
        )
        return Outcome(encoded, images[REJECTED])


class DecodeTokens(beam.PTransform):
    """Dicts with VQGAN codes -> dicts with an image file.

        with beam.Pipeline() as p:
            rows, rejected = p | beam.io.ReadFromParquet("tokens/data/*.parquet") | DecodeTokens("emoji")
            rows | beam.Map(lambda row: (row["key"], row["image"])) | ...  # PNG files

    `codes_column` holds a list or array of any integer type; it is dropped unless `keep_codes`. The image, a whole
    png, webp or jpeg file, goes to `image_column`. Model, batches, device and threads as with `EncodeImages`. Rows
    whose codes do not fit the model are rejected; codes of another codebook of the same size cannot be told.

    Raises `UsageError` for an unknown format, in the worker for a column that holds no integers.
    """

    def __init__(
        self,
        model: str = "emoji",
        *,
        codes_column: str = ENCODING,
        keep_codes: bool = False,
        image_column: str = "image",
        image_format: str = "png",
        batch_size: int = 32,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        backend: str = "torch",
        cache_dir: str = CACHE_DIR,
    ) -> None:
        super().__init__()
        check_format(image_format)
        self._model = settings(model, cache_dir, backend, device, dtype, batch_size, threads)
        self._codes_column = codes_column
        self._keep = keep_codes
        self._image_column = image_column
        self._format = image_format

    def expand(self, rows: beam.PCollection) -> Outcome:
        column, image_format = self._image_column, self._format
        read = ReadCodes(self._model, self._codes_column, self._keep)
        codes = rows | "Read codes" >> beam.ParDo(read).with_outputs(REJECTED, main=GOOD)
        decoded = (
            codes[GOOD]
            | "Decode" >> RunInference(StepHandler(DecodeStep(self._model), CODES, PIXELS))
            | "Add images"
            >> beam.MapTuple(lambda row, pixels: {**row, column: encode_image(square(pixels), image_format)})
        )
        return Outcome(decoded, codes[REJECTED])


class ScoreImages(beam.PTransform):
    """Dicts with the bytes of an image file and a caption -> the same dicts with their CLIP score.

        with beam.Pipeline() as p:
            scored = p | beam.io.ReadFromParquet("photos/*.parquet") | ScoreImages("hf://openai/clip-vit-base-patch32")
            scored.rows | beam.Filter(lambda row: row["clip_score"] > 0.25) | ...

    `clip_score`, a float that replaces one that the row has, is the cosine of the image and the unchanged caption; of
    a list of captions the first that is not blank. `image_column` holds bytes, or the `{bytes, path}` of Hugging
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
        check_batch_size(batch_size)
        self._clip = ClipSettings(clip, cache_dir, device, batch_size, threads or 0)
        self._image_column = image_column
        self._caption_column = caption_column
        self._limits = ImageLimits(**limits)

    def expand(self, rows: beam.PCollection) -> Outcome:
        decoder = partial(clip_decoder, self._clip, self._limits)
        read = ReadImages(decoder, self._image_column, keep=True, caption_column=self._caption_column)
        pairs = rows | "Read pairs" >> beam.ParDo(read).with_outputs(REJECTED, main=GOOD)
        beside = partial(caption_for_step, column=self._caption_column)
        scored = (
            pairs[GOOD]
            | "Score" >> RunInference(StepHandler(ScoreStep(self._clip), CLIP_PIXELS, CLIP_SCORE, beside))
            | "Add scores" >> beam.MapTuple(lambda row, score: {**row, CLIP_SCORE: float(score)})
        )
        return Outcome(scored, pairs[REJECTED])


class ReadImages(beam.DoFn):
    """A dict -> (dict, array for the model); rejects rows whose image cannot be read, or that lack a caption.

    `open_decoder` is called in the worker, which has the model. `sizes` adds the original size, `caption_column` is
    that of a caption that is needed.
    """

    def __init__(
        self,
        open_decoder: Callable[[], Decode],
        column: str,
        keep: bool,
        sizes: bool = False,
        caption_column: str | None = None,
    ) -> None:
        self._open_decoder = open_decoder
        self._column = column
        self._keep = keep
        self._sizes = sizes
        self._caption_column = caption_column

    def setup(self) -> None:
        self._decode = self._open_decoder()

    def process(self, row: Row) -> Iterable[RowArray | beam.pvalue.TaggedOutput]:
        try:
            if self._caption_column is not None:
                caption_of(row, self._caption_column)
            image = self._decode(image_bytes(row, self._column))
        except RowFiltered:
            Metrics.counter("vqbeam", "rows_filtered").inc()
        except RowRejected as cause:
            yield rejected(row, cause)
        else:
            sizes = {ORIGINAL_WIDTH: image.original_width, ORIGINAL_HEIGHT: image.original_height}
            yield {**(sizes if self._sizes else {}), **without(row, self._column, self._keep)}, image.pixels


def square_decoder(model: ModelSettings, options: Mapping[str, Any]) -> Decode:
    """The decoder of `vqbeam encode` for a model."""
    return partial(decode_image, options=ImageOptions(size=model.spec.resolution, **options))


def clip_decoder(clip: ClipSettings, limits: ImageLimits) -> Decode:
    """The decoder of `vqbeam rank` for a CLIP."""
    preprocess, _ = read_clip_parts(find(clip.name, clip.cache_dir).clip)
    return partial(decode_for_clip, limits=limits, preprocess=preprocess)


class ReadCodes(beam.DoFn):
    """A dict -> (dict, int32 [codes_per_image]); rejects rows whose codes do not fit the model."""

    def __init__(self, model: ModelSettings, column: str, keep: bool) -> None:
        self._model = model
        self._column = column
        self._keep = keep

    def setup(self) -> None:
        self._spec = self._model.spec

    def process(self, row: Row) -> Iterable[RowArray | beam.pvalue.TaggedOutput]:
        try:
            codes = checked_codes(row, self._column, self._spec)
        except RowRejected as cause:
            yield rejected(row, cause)
        else:
            yield without(row, self._column, self._keep), codes


def settings(
    model: str, cache_dir: str, backend: str, device: str, dtype: str, batch_size: int, threads: int | None
) -> ModelSettings:
    check_batch_size(batch_size)
    return ModelSettings(model, cache_dir, backend, device, dtype, batch_size, threads or 0)


def image_bytes(row: Row, column: str) -> bytes:
    """The bytes in `column`. Raises `RowRejected` if it is empty, `UsageError` if it holds something else."""
    cell = row.get(column)
    if isinstance(cell, Mapping):
        cell = cell.get("bytes")
    if cell is None:
        raise RowRejected("missing_image", f"no bytes in column {column!r}; the row has {', '.join(map(str, row))}")
    if not isinstance(cell, bytes | bytearray | memoryview):
        raise UsageError(f"column {column!r} holds {type(cell).__name__}, not bytes; name another with image_column=")
    return bytes(cell)


def checked_codes(row: Row, column: str, spec: TokenizerSpec) -> np.ndarray:
    """int32 [codes_per_image]. Raises `RowRejected` if they do not fit the model, `UsageError` for no integers."""
    try:
        codes = np.asarray(row.get(column))
    except ValueError as error:
        raise UsageError(f"column {column!r} holds lists of different lengths, not a list of integers") from error
    if codes.dtype == object and any(code is None for code in codes.flat):
        raise RowRejected("missing_codes", f"no codes in column {column!r}; the row has {', '.join(map(str, row))}")
    if codes.size and (codes.ndim != 1 or codes.dtype.kind not in "iu"):
        found = f"{codes.dtype} {list(codes.shape)}"
        raise UsageError(f"column {column!r} holds {found}, not a list of integers; name another with codes_column=")
    return fitting_codes(codes.reshape(-1), spec)


def without(row: Row, column: str, keep: bool) -> Row:
    return row if keep else {name: value for name, value in row.items() if name != column}


def square(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H*H*3] -> [H, H, 3]."""
    side = round((len(pixels) // 3) ** 0.5)
    return pixels.reshape(side, side, 3)


def caption_of(row: Row, column: str) -> str:
    """The text that is scored. Raises `RowRejected` if there is none, `UsageError` for a column of another type."""
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
    return {CAPTION: text.encode("utf-8", "replace").decode()}  # Arrow takes no half of a surrogate pair
