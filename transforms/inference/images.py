"""Transforms for images in your own pipelines: rows are dicts, in and out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import apache_beam as beam
import numpy as np
import pyarrow as pa

from models import find
from models.clip.scorer import read_clip_parts
from models.clip.text import ClipText
from models.image_tokenizer import CENTER_CROP, PixelRange, TokenizerOptions, TokenizerSpec
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
    fixed_lists,
    to_images,
    to_rows,
)
from transforms.errors import RowRejected, UsageError
from transforms.image_options import ImageLimits, Resize, image_options
from transforms.images import decode_image
from transforms.inference.asked import BATCH_SIZE, CACHE_DIR, check_batch_size, tokenizer_settings
from transforms.inference.handlers import Outcome, Pair, Reader, Row, StepHandler, through_model
from transforms.outputs.image_files import check_format, encode_image
from transforms.work.decode import DecodeStep
from transforms.work.encode import EncodeStep
from transforms.work.prepare import fitting_codes
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
    `original_width` and `original_height` unless the row has them. Every other column stays. `resize` ("auto" is the
    model's own) and further `options` (`max_image_bytes`, `min_image_size`, ...) are those of `ImageOptions`; rows that
    its filters take out are counted in the metric vqbeam/rows_filtered. `pixel_range`, `image_size`, `weights` and
    `tokenizer` are as the flags.

    The model is loaded once in each worker process. Batches have at most `batch_size` rows and are computed at that
    full size, so a row's codes do not depend on its neighbours. Each worker resolves `device` and `dtype` "auto" by
    itself: name them if workers differ. `threads` are those within an operation on a CPU, by default torch's own:
    torch rounds by them, so name them if workers have other numbers of cores.

    Raises `UsageError` for invalid options, in the worker for a column that holds no bytes.
    """

    def __init__(
        self,
        model: str = "emoji",
        *,
        image_column: str = "image",
        keep_image: bool = False,
        resize: Resize | Literal["auto"] = "auto",
        batch_size: int = BATCH_SIZE,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        backend: str = "torch",
        cache_dir: str = CACHE_DIR,
        pixel_range: PixelRange | None = None,
        image_size: int | None = None,
        weights: str | None = None,
        tokenizer: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        asked = TokenizerOptions(pixel_range, image_size, weights, tokenizer=tokenizer)
        self._model = tokenizer_settings(model, cache_dir, backend, device, dtype, batch_size, threads, asked)
        self._column = image_column
        self._keep = keep_image
        self._options = {"resize": resize, **options}
        image_options(1, CENTER_CROP, self._options)

    def expand(self, rows: beam.PCollection) -> Outcome:
        handler = StepHandler(
            partial(EncodeStep, self._model),
            self._model.batch_size,
            partial(packed, PIXELS),
            lambda batch, _: to_rows(batch.column(ENCODING)),
            ENCODING,
        )
        reader = partial(image_reader, self._model, self._options, self._column, self._keep)
        add = beam.MapTuple(lambda row, codes: {**row, ENCODING: codes})
        return through_model(rows, ("Read images", "Encode", "Add codes"), reader, handler, add)


class DecodeTokens(beam.PTransform):
    """Dicts with VQGAN codes -> dicts with an image file.

        with beam.Pipeline() as p:
            rows, rejected = p | beam.io.ReadFromParquet("tokens/data/*.parquet") | DecodeTokens("emoji")
            rows | beam.Map(lambda row: (row["key"], row["image"])) | ...  # PNG files

    `codes_column` holds a list or array of any integer type; it is dropped unless `keep_codes`. The image, a whole
    png, webp or jpeg file, goes to `image_column`. Model, batches, device and threads as with `EncodeImages`. Rows
    whose codes do not fit the model are rejected; codes of another codebook of the same size go unnoticed.

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
        batch_size: int = BATCH_SIZE,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        backend: str = "torch",
        cache_dir: str = CACHE_DIR,
        pixel_range: PixelRange | None = None,
        image_size: int | None = None,
        weights: str | None = None,
        tokenizer: str | None = None,
    ) -> None:
        super().__init__()
        check_format(image_format)
        asked = TokenizerOptions(pixel_range, image_size, weights, tokenizer=tokenizer)
        self._model = tokenizer_settings(model, cache_dir, backend, device, dtype, batch_size, threads, asked)
        self._codes_column = codes_column
        self._keep = keep_codes
        self._image_column = image_column
        self._format = image_format

    def expand(self, rows: beam.PCollection) -> Outcome:
        column, image_format = self._image_column, self._format
        handler = StepHandler(
            partial(DecodeStep, self._model),
            self._model.batch_size,
            partial(packed, CODES),
            lambda batch, _: to_images(batch.column(PIXELS)),
            PIXELS,
        )
        reader = partial(code_reader, self._model, self._codes_column, self._keep)
        add = beam.MapTuple(lambda row, pixels: {**row, column: encode_image(pixels, image_format)})
        return through_model(rows, ("Read codes", "Decode", "Add images"), reader, handler, add)


class ScoreImages(beam.PTransform):
    """Dicts with the bytes of an image file and a caption -> the same dicts with their CLIP score.

        with beam.Pipeline() as p:
            scored = p | beam.io.ReadFromParquet("photos/*.parquet") | ScoreImages("hf://openai/clip-vit-base-patch32")
            scored.rows | beam.Filter(lambda row: row["clip_score"] > 0.25) | ...

    `clip_score`, a float that replaces one that the row has, is the cosine of the image and the caption; of a list of
    captions the first that is not blank. `clip_text` is as the flag of `vqbeam rank`: "clean", or "raw". `image_column`
    holds bytes, or the `{bytes, path}` of Hugging Face datasets. Further `limits` (`max_image_bytes`, `min_image_size`,
    ...) are those of `ImageLimits`; rows that its filters take out are counted in the metric vqbeam/rows_filtered. The
    CLIP computes in float32; batches, device and threads as with `EncodeImages`.

    Raises `UsageError` for invalid options, in the worker for a column that holds no bytes or no text.
    """

    def __init__(
        self,
        clip: str = "emoji",
        *,
        image_column: str = "image",
        caption_column: str = "caption",
        clip_text: ClipText = "clean",
        batch_size: int = BATCH_SIZE,
        device: str = "auto",
        threads: int | None = None,
        cache_dir: str = CACHE_DIR,
        **limits: Any,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        self._clip = ClipSettings(clip, cache_dir, device, batch_size, threads or 0, clip_text)
        self._image_column = image_column
        self._caption_column = caption_column
        self._limits = ImageLimits(**limits)

    def expand(self, rows: beam.PCollection) -> Outcome:
        handler = StepHandler(
            partial(ScoreStep, self._clip),
            self._clip.batch_size,
            partial(packed_pairs, self._caption_column),
            lambda batch, _: batch.column(CLIP_SCORE).to_numpy(),
            CLIP_SCORE,
        )
        reader = partial(pair_reader, self._clip, self._limits, self._image_column, self._caption_column)
        add = beam.MapTuple(lambda row, score: {**row, CLIP_SCORE: float(score)})
        return through_model(rows, ("Read pairs", "Score", "Add scores"), reader, handler, add)


def image_reader(model: ModelSettings, options: Mapping[str, Any], column: str, keep: bool) -> Reader:
    """Decodes and resizes images as `vqbeam encode` does, and adds their original sizes."""
    spec = model.spec
    asked = image_options(spec.resolution, spec.preprocessing, options)

    def read(row: Row) -> Iterator[Pair]:
        image = decode_image(image_bytes(row, column), asked)
        sizes = {ORIGINAL_WIDTH: image.original_width, ORIGINAL_HEIGHT: image.original_height}
        yield sizes | without(row, column, keep), image.pixels

    return read


def code_reader(model: ModelSettings, column: str, keep: bool) -> Reader:
    """Checks codes against the model."""
    spec = model.spec

    def read(row: Row) -> Iterator[Pair]:
        yield without(row, column, keep), checked_codes(row, column, spec)

    return read


def pair_reader(clip: ClipSettings, limits: ImageLimits, image_column: str, caption_column: str) -> Reader:
    """Prepares images as `vqbeam rank` does, and checks that each has a caption."""
    preprocess, _ = read_clip_parts(find(clip.name, clip.cache_dir).clip)

    def read(row: Row) -> Iterator[Pair]:
        caption_of(row, caption_column)
        yield row, decode_for_clip(image_bytes(row, image_column), limits, preprocess).pixels

    return read


def packed(column: str, pairs: Sequence[Pair]) -> pa.RecordBatch:
    """The arrays of the pairs as a column."""
    return pa.RecordBatch.from_pydict({column: fixed_lists(np.stack([array for _, array in pairs]))})


def packed_pairs(caption_column: str, pairs: Sequence[Pair]) -> pa.RecordBatch:
    """The prepared images and their captions as columns; half a surrogate pair, which Arrow refuses, becomes "?"."""
    captions = [caption_of(row, caption_column).encode("utf-8", "replace").decode() for row, _ in pairs]
    return packed(CLIP_PIXELS, pairs).append_column(CAPTION, pa.array(captions))


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
