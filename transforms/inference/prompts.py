"""`GeneratePictures`: images for prompts in your own pipelines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics

from models import find
from models.clip.text import ClipText
from transforms.batch import (
    CLIP_SCORE,
    ENCODING,
    HEIGHT,
    IMAGES,
    KEY,
    PIXELS,
    PROMPT,
    SAMPLE,
    SEED,
    WIDTH,
    to_images,
    to_rows,
)
from transforms.errors import RowRejected, UsageError
from transforms.inference.asked import BATCH_SIZE, CACHE_DIR, SCHEMA, Asked, canonical, check_batch_size, usable
from transforms.inference.handlers import Outcome, Pair, Reader, Row, StepHandler, through_model
from transforms.inputs.rows import batches
from transforms.outputs.image_files import check_format, encode_image
from transforms.work.generate import GenerateStep, png_texts
from transforms.work.prompts import CUT, prepare_prompts, slot_batch, slots_of

MADE = (KEY, PROMPT, SAMPLE, SEED, WIDTH, HEIGHT)  # of an image, beside its codes, file and score


class GeneratePictures(beam.PTransform):
    """Prompts -> dicts with an image each.

        with beam.Pipeline() as p:
            drawn = p | beam.Create(["a red apple", {"prompt": "a rocket", "seed": 7}]) | GeneratePictures("emoji")
            drawn.rows | beam.Map(lambda row: (row["key"], row["sample"], row["image"])) | ...  # PNG files

    `sampling` takes `guidance_scale`, `temperature`, `top_k` and `top_p` (`models/bart/options.py`). A prompt is a
    string, or a dict with `prompt` and, optionally, `key`, `seed`, `images` and those of `sampling`. These override the
    options given here, which override the model's own. The other entries of a dict stay. Added are `key` (made from the
    prompt if missing, so that equal prompts without keys give equal images), `prompt`, `sample` (from 0), `seed`,
    `encoding` (the codes, in raster order), `image` (a whole png, webp or jpeg file), `width`, `height` and, with a
    `clip`, `clip_score`.

    An image depends on seed, key, sample, model and `batch_size`, the number of images at once, not on its neighbours.
    If these are the same, it is that of `vqbeam generate`. With `guidance_scale=1` the half that guidance takes is not
    computed, and no prompt can ask for another. `model`, `vqgan`, `clip` and `clip_text` are as the flags of the
    command; device, dtype and threads as with `EncodeImages`. Prompts that cannot be drawn are rejected, once each.

    Raises `UsageError` for invalid options, in the worker for elements that are neither string nor dict.
    """

    def __init__(
        self,
        model: str = "emoji",
        *,
        vqgan: str | None = None,
        clip: str | None = None,
        clip_text: ClipText = "clean",
        images_per_prompt: int = 1,
        seed: int = 0,
        image_column: str = "image",
        image_format: str = "png",
        batch_size: int = BATCH_SIZE,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        cache_dir: str = CACHE_DIR,
        **sampling: float | None,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        check_format(image_format)
        self._asked = Asked(
            model=model,
            vqgan=vqgan or model,
            clip=clip,
            clip_text=clip_text,
            options=usable(images_per_prompt, seed, sampling),
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            threads=threads or 0,
            cache_dir=cache_dir,
        )
        self._image_column = image_column
        self._image_format = image_format

    def expand(self, prompts: beam.PCollection) -> Outcome:
        asked = self._asked
        handler = StepHandler(
            lambda: GenerateStep(asked.settings()),
            asked.slots,
            lambda pairs: slot_batch([slot for _, slot in pairs]),
            images_of_slots,
            "pictures",
        )
        rows = prompts | "As rows" >> beam.Map(prompt_row)
        add = beam.ParDo(AddImages(asked, self._image_column, self._image_format))
        return through_model(rows, ("Read prompts", "Draw", "Add images"), partial(prompt_reader, asked), handler, add)


def prompt_reader(asked: Asked) -> Reader:
    """Prepares prompts as `vqbeam generate` does: a pair for each slot that the images of a prompt take."""
    text = find(asked.model, asked.cache_dir).bart.text_encoder()
    drawing = asked.drawing()

    def read(row: Row) -> Iterator[Pair]:
        prepared = prepare_prompts(next(batches([canonical(row)], SCHEMA)), 0, text, drawing)
        if prepared.refusals:
            raise prepared.refusals[0].cause
        columns = prepared.columns
        guidance = columns.column("guidance_scale")[0].as_py()
        if drawing["guidance_scale"] == 1 and guidance != 1:
            built = "but the pipeline was built with 1, which computes no guidance"
            raise RowRejected("bad_value", f"guidance_scale is {guidance}, {built}")
        Metrics.counter("vqbeam", "prompts_cut").inc(prepared.notices.get(CUT, 0))
        for slot in slots_of(columns, columns.column(IMAGES)[0].as_py(), asked.images_per_slot):
            yield row, slot

    return read


def images_of_slots(batch: pa.RecordBatch, pairs: Sequence[Pair]) -> Iterator[pa.RecordBatch]:
    """A row for each image of a slot."""
    start = 0
    for _, slot in pairs:
        yield batch.slice(start, len(slot.samples))
        start += len(slot.samples)


class AddImages(beam.DoFn):
    """A prompt and the rows of its images -> a dict for each image, with its file."""

    def __init__(self, asked: Asked, image_column: str, image_format: str) -> None:
        self._asked = asked
        self._column = image_column
        self._format = image_format

    def setup(self) -> None:
        self._model = find(self._asked.model, self._asked.cache_dir).bart.name

    def process(self, drawn: Pair) -> Iterator[Row]:
        row, batch = drawn
        names = [*MADE, *([CLIP_SCORE] if CLIP_SCORE in batch.schema.names else [])]
        made = batch.select(names).to_pylist()
        codes, pixels = to_rows(batch.column(ENCODING)), to_images(batch.column(PIXELS))
        texts = png_texts(batch, self._model)
        for values, encoding, image, text in zip(made, codes, pixels, texts, strict=True):
            yield {**row, **values, ENCODING: encoding, self._column: encode_image(image, self._format, text)}


def prompt_row(prompt: str | Row) -> Row:
    """A prompt as a dict. Raises `UsageError` for anything else."""
    if isinstance(prompt, str):
        return {PROMPT: prompt}
    if isinstance(prompt, Mapping):
        return dict(prompt)
    raise UsageError(f"GeneratePictures takes strings, or dicts with {PROMPT!r}; an element is {type(prompt).__name__}")
