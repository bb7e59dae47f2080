"""The model steps for pipelines of your own: rows that are dicts in, through Beam's `RunInference`, dicts out.

The commands do not go through here; they stream whole shards (`transforms/engine/worker.py`) with the same
steps inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, RunInference

from models import find
from models.image_tokenizer import TokenizerSpec
from transforms.batch import CODES, ENCODING, PIXELS, fixed_lists, to_rows
from transforms.errors import RowFiltered, RowRejected, UsageError
from transforms.images import ImageOptions, Resize, decode_image
from transforms.inference.notebook import check_notebook
from transforms.outputs.image_files import check_format, encode_image
from transforms.work.codes import fitting_codes
from transforms.work.step import DecodeStep, EncodeStep, ModelSettings, Step

check_notebook()

Row = dict[str, Any]
RowArray = tuple[Row, np.ndarray]
Beside = Callable[[Row], Mapping[str, Any]]

GOOD = "good"
REJECTED = "rejected"
CACHE_DIR = "~/.cache/vqbeam"


class Outcome(NamedTuple):
    """`rows`: dicts that went through the model. `rejected`: a dict for each that could not, with the `row` as it came,
    `error` (a code of `docs/errors.md`) and `message`."""

    rows: beam.PCollection
    rejected: beam.PCollection


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
    `original_width` and `original_height` where the row has none. Every other column stays. `resize` and further
    `image_options` (`max_image_bytes`, `min_image_size`, ...) are those of `ImageOptions`; rows that its filters take
    out are counted in the metric vqbeam/rows_filtered.

    The model is loaded once in each worker process. Batches have at most `batch_size` rows and are computed at that
    full size, so a row's codes do not depend on its neighbours. Each worker resolves `device` and `dtype` "auto" by
    itself: name them where workers differ. `threads` are those within an operation on a CPU, by default what torch has.

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
        read = ReadPictures(self._model, self._column, self._keep, self._options)
        pictures = rows | "Read pictures" >> beam.ParDo(read).with_outputs(REJECTED, main=GOOD)
        encoded = (
            pictures[GOOD]
            | "Encode" >> RunInference(StepHandler(EncodeStep(self._model), PIXELS, ENCODING))
            | "Add codes" >> beam.MapTuple(lambda row, codes: {**row, ENCODING: codes})
        )
        return Outcome(encoded, pictures[REJECTED])


class DecodeTokens(beam.PTransform):
    """Dicts with VQGAN codes -> dicts with a picture file.

        with beam.Pipeline() as p:
            rows, rejected = p | beam.io.ReadFromParquet("tokens/data/*.parquet") | DecodeTokens("emoji")
            rows | beam.Map(lambda row: (row["key"], row["image"])) | ...  # PNG files

    `codes_column` holds a list or array of any integer type; it is dropped unless `keep_codes`. The picture, a whole
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
            | "Add pictures"
            >> beam.MapTuple(lambda row, pixels: {**row, column: encode_image(square(pixels), image_format)})
        )
        return Outcome(decoded, codes[REJECTED])


class StepHandler(ModelHandler):
    """A `ModelHandler` around a step: (row, array) in, (row, array or number) out.

    `taken` and `given` are what the step calls the two; `beside` makes further columns for it out of a row. The handler
    gives no resource hints: they would break fusion and put the pixels through a shuffle, on local runners too.
    """

    def __init__(self, step: Step, taken: str, given: str, beside: Beside | None = None) -> None:
        super().__init__()
        self._step = step
        self._taken = taken
        self._given = given
        self._beside = beside

    def load_model(self) -> Step:
        self._step.setup()
        return self._step

    def run_inference(
        self, batch: Sequence[RowArray], model: Step, inference_args: dict[str, Any] | None = None
    ) -> Iterable[RowArray]:
        rows = [row for row, _ in batch]
        columns = {self._taken: fixed_lists(np.stack([array for _, array in batch]))}
        if self._beside is not None:
            columns |= pa.RecordBatch.from_pylist([self._beside(row) for row in rows]).to_pydict()
        result = model(pa.RecordBatch.from_pydict(columns)).column(self._given)
        return zip(
            rows, to_rows(result) if pa.types.is_fixed_size_list(result.type) else result.to_numpy(), strict=True
        )

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """One size: with a range Beam would tune the size by timing, and each is computed at the full size anyway."""
        return {"min_batch_size": self._step.batch_size, "max_batch_size": self._step.batch_size}

    def get_num_bytes(self, batch: Sequence[RowArray]) -> int:
        """For Beam's metrics; the default pickles the batch to find out."""
        return sum(array.nbytes for _, array in batch)

    def get_metrics_namespace(self) -> str:
        return f"vqbeam_{self._given}"


class ReadPictures(beam.DoFn):
    """A dict -> (dict, uint8 [size, size, 3]); rows whose picture cannot be read go to the dead letters, one by one."""

    def __init__(self, model: ModelSettings, column: str, keep: bool, options: Mapping[str, Any]) -> None:
        self._model = model
        self._column = column
        self._keep = keep
        self._values = options

    def setup(self) -> None:
        self._options = ImageOptions(size=tokenizer_spec(self._model).resolution, **self._values)

    def process(self, row: Row) -> Iterable[RowArray | beam.pvalue.TaggedOutput]:
        try:
            picture = decode_image(image_bytes(row, self._column), self._options)
        except RowFiltered:
            Metrics.counter("vqbeam", "rows_filtered").inc()
        except RowRejected as cause:
            yield dead_letter(row, cause)
        else:
            sizes = {"original_width": picture.original_width, "original_height": picture.original_height}
            yield {**sizes, **without(row, self._column, self._keep)}, picture.pixels


class ReadCodes(beam.DoFn):
    """A dict -> (dict, int32 [codes_per_image]); rows whose codes do not fit the model go to the dead letters."""

    def __init__(self, model: ModelSettings, column: str, keep: bool) -> None:
        self._model = model
        self._column = column
        self._keep = keep

    def setup(self) -> None:
        self._spec = tokenizer_spec(self._model)

    def process(self, row: Row) -> Iterable[RowArray | beam.pvalue.TaggedOutput]:
        try:
            codes = checked_codes(row, self._column, self._spec)
        except RowRejected as cause:
            yield dead_letter(row, cause)
        else:
            yield without(row, self._column, self._keep), codes


def settings(
    model: str, cache_dir: str, backend: str, device: str, dtype: str, batch_size: int, threads: int | None
) -> ModelSettings:
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    return ModelSettings(model, cache_dir, backend, device, dtype, batch_size, threads or 0)


def tokenizer_spec(model: ModelSettings) -> TokenizerSpec:
    """What the model takes and gives, read without its weights."""
    return find(model.name, model.cache_dir).tokenizer.spec


def image_bytes(row: Row, column: str) -> bytes:
    """The bytes in `column`. Raises `RowRejected` where there are none, `UsageError` where it holds something else."""
    cell = row.get(column)
    if isinstance(cell, Mapping):
        cell = cell.get("bytes")
    if cell is None:
        raise RowRejected("missing_image", f"no bytes in column {column!r}; the row has {', '.join(map(str, row))}")
    if not isinstance(cell, bytes | bytearray | memoryview):
        raise UsageError(f"column {column!r} holds {type(cell).__name__}, not bytes; name another with image_column=")
    return bytes(cell)


def checked_codes(row: Row, column: str, spec: TokenizerSpec) -> np.ndarray:
    """int32 [codes_per_image]. Raises `RowRejected` where they do not fit the model, `UsageError` for no integers."""
    try:
        codes = np.asarray(row.get(column))
    except ValueError as error:
        raise UsageError(f"column {column!r} holds lists of different lengths, not a list of integers") from error
    if codes.dtype == object and any(code is None for code in codes.flat):
        raise RowRejected("missing_codes", f"no codes in column {column!r}; the row has {', '.join(map(str, row))}")
    if codes.size and (codes.ndim != 1 or codes.dtype.kind not in "iu"):
        found = f"{codes.dtype} {list(codes.shape)}"
        raise UsageError(f"column {column!r} holds {found}, not a list of integers; name another with codes_column=")
    return fitting_codes(codes.reshape(-1), spec.codes_per_image, spec.codebook_size)


def without(row: Row, column: str, keep: bool) -> Row:
    return row if keep else {name: value for name, value in row.items() if name != column}


def dead_letter(row: Row, cause: RowRejected) -> beam.pvalue.TaggedOutput:
    Metrics.counter("vqbeam", "rows_rejected").inc()
    return beam.pvalue.TaggedOutput(REJECTED, {"row": row, "error": cause.code, "message": cause.message})


def square(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H*H*3] -> [H, H, 3]."""
    side = round((len(pixels) // 3) ** 0.5)
    return pixels.reshape(side, side, 3)
