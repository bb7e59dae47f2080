"""Pictures for prompts in pipelines of your own: the step of `vqbeam generate` through Beam's `RunInference`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, RunInference

from models import find
from models.bart.checkpoint import check_pair
from models.bart.options import OPTIONS, Drawing, read_generation_defaults
from models.devices import resolve_device, resolve_dtype
from transforms.batch import CLIP_SCORE, ENCODING, HEIGHT, PIXELS, PROMPT, SAMPLE, WIDTH, to_images, to_rows
from transforms.errors import RowRejected, UsageError
from transforms.inference.images import CACHE_DIR, GOOD, REJECTED, Outcome, Row, dead_letter
from transforms.inference.notebook import check_notebook
from transforms.inputs import InputSchema
from transforms.inputs.options import option_value
from transforms.inputs.rows import Row as PromptRow
from transforms.inputs.rows import batches, fill_prompt, prompt_key
from transforms.outputs.image_files import check_format, encode_image
from transforms.work.generate_step import GenerateStep, GeneratorSettings, picture_texts
from transforms.work.prompts import CUT, Place, place_batch, prepare_prompts
from transforms.work.step import ModelSettings

check_notebook()

SCHEMA = InputSchema("prompts", caption=PROMPT, key="key", options=tuple(OPTIONS))
MADE = ("key", PROMPT, SAMPLE, "seed", WIDTH, HEIGHT)  # of a picture, beside its codes, file and score


class GeneratePictures(beam.PTransform):
    """Prompts -> dicts with a picture each.

        with beam.Pipeline() as p:
            drawn = p | beam.Create(["a red apple", {"prompt": "a rocket", "seed": 7}]) | GeneratePictures("emoji")
            drawn.rows | beam.Map(lambda row: (row["key"], row["sample"], row["image"])) | ...  # PNG files

    A prompt is a string, or a dict with `prompt` and, where it wants, `key`, `seed`, `images`, `guidance_scale`,
    `temperature`, `top_k` and `top_p`, which stand above those given here; these stand above the model's own. What else
    a dict holds stays. Added are `key` (made from the prompt where there is none, so that equal prompts without keys
    give equal pictures), `prompt`, `sample` (from 0), `seed`, `encoding` (the codes, in raster order), `image` (a whole
    png, webp or jpeg file), `width`, `height` and, with a `clip`, `clip_score`.

    A picture depends on seed, key, sample, model and `batch_size`, the number of pictures at once, and is that of
    `vqbeam generate` where these are the same; not on its neighbours. With `guidance_scale=1` the half that guidance
    takes is not computed, and no prompt can ask for another. `model`, `vqgan` and `clip` are as the flags of the
    command; device, dtype and threads as with `EncodeImages`. Prompts that cannot be drawn are rejected, once each.

    Raises `UsageError` for options that make no sense, in the worker for elements that are neither string nor dict.
    """

    def __init__(
        self,
        model: str = "emoji",
        *,
        vqgan: str | None = None,
        clip: str | None = None,
        images_per_prompt: int = 1,
        seed: int = 0,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        image_column: str = "image",
        image_format: str = "png",
        batch_size: int = 32,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        cache_dir: str = CACHE_DIR,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        check_format(image_format)
        options = {"images": images_per_prompt, "seed": seed, "guidance_scale": guidance_scale}
        options |= {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        self._asked = Asked(
            model=model,
            vqgan=vqgan or model,
            clip=clip,
            options=usable(options),
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            threads=threads or 0,
            cache_dir=cache_dir,
        )
        self._image_column = image_column
        self._image_format = image_format

    def expand(self, prompts: beam.PCollection) -> Outcome:
        places = prompts | "Read prompts" >> beam.ParDo(ReadPrompts(self._asked)).with_outputs(REJECTED, main=GOOD)
        drawn = (
            places[GOOD]
            | "Draw" >> RunInference(PlaceHandler(self._asked))
            | "Add pictures" >> beam.ParDo(AddPictures(self._asked, self._image_column, self._image_format))
        )
        return Outcome(drawn, places[REJECTED])


@dataclass(frozen=True)
class Asked:
    """What the user asked for, where `options` has no entry left to the model. Travels to the workers, which resolve
    it: the models need not be on the machine that builds the pipeline."""

    model: str
    vqgan: str
    clip: str | None
    options: Mapping[str, Any]
    batch_size: int
    device: str
    dtype: str
    threads: int
    cache_dir: str

    @property
    def pictures(self) -> int:
        """Of a place for a prompt."""
        return min(int(self.options["images"]), self.batch_size)

    @property
    def places(self) -> int:
        """Of a batch."""
        return self.batch_size // self.pictures

    def drawing(self) -> Drawing:
        """What holds for a prompt that says nothing: opens the checkpoint of the BART, without its weights."""
        return read_generation_defaults(find(self.model, self.cache_dir).bart.path) | dict(self.options)

    def settings(self) -> GeneratorSettings:
        """Finds the models and checks that they go together. Raises `CheckpointError` and `ConfigError`."""
        device = resolve_device(self.device)
        spec = find(self.vqgan, self.cache_dir).tokenizer.spec
        check_pair(find(self.model, self.cache_dir).bart.config, spec)
        return GeneratorSettings(
            bart=self.model,
            vqgan=ModelSettings(
                name=self.vqgan,
                cache_dir=self.cache_dir,
                backend="torch",
                device=device,
                dtype=resolve_dtype(self.dtype, device),
                batch_size=min(self.batch_size, spec.batch_size(device)),
                threads=self.threads,
            ),
            prompts=self.places,
            pictures=self.pictures,
            guided=self.drawing()["guidance_scale"] != 1,
            clip=self.clip,
        )


class PlaceRow(NamedTuple):
    """A prompt as it came, and a part of its pictures, prepared."""

    row: Row
    place: Place


class DrawnRow(NamedTuple):
    """A prompt as it came, and a row for each picture of a part."""

    row: Row
    pictures: pa.RecordBatch


class ReadPrompts(beam.DoFn):
    """A string or dict -> a `PlaceRow` for every so many of its pictures; what cannot be drawn goes to the dead
    letters."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def setup(self) -> None:
        self._text = find(self._asked.model, self._asked.cache_dir).bart.text_encoder()
        self._drawing = self._asked.drawing()

    def process(self, prompt: str | Row) -> Iterable[PlaceRow | beam.pvalue.TaggedOutput]:
        row = prompt_row(prompt)
        try:
            batch = next(batches([canonical(row)], SCHEMA))
            prepared = prepare_prompts(batch, 0, self._text, self._drawing)
            if prepared.refusals:
                raise prepared.refusals[0].cause
            self._check_guidance(prepared.columns)
        except RowRejected as cause:
            yield dead_letter(row, cause)
            return
        Metrics.counter("vqbeam", "prompts_cut").inc(prepared.notices.get(CUT, 0))
        images = prepared.columns.column("images")[0].as_py()
        step = self._asked.pictures
        for first in range(0, images, step):
            yield PlaceRow(row, Place(prepared.columns, range(first, min(first + step, images))))

    def _check_guidance(self, columns: pa.RecordBatch) -> None:
        asked = columns.column("guidance_scale")[0].as_py()
        if self._drawing["guidance_scale"] == 1 and asked != 1:
            raise RowRejected(
                "bad_value", f"guidance_scale is {asked}, but the pipeline was built with 1, which computes no guidance"
            )


class PlaceHandler(ModelHandler[PlaceRow, DrawnRow, GenerateStep]):
    """A `ModelHandler` around the step of `generate`. Like `StepHandler` it gives no resource hints."""

    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self._asked = asked

    def load_model(self) -> GenerateStep:
        step = GenerateStep(self._asked.settings())
        step.setup()
        return step

    def run_inference(
        self, batch: Sequence[PlaceRow], model: GenerateStep, inference_args: dict[str, Any] | None = None
    ) -> Iterator[DrawnRow]:
        drawn = model(place_batch([item.place for item in batch]))
        start = 0
        for item in batch:
            count = len(item.place.samples)
            yield DrawnRow(item.row, drawn.slice(start, count))
            start += count

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """One size, as with `StepHandler`."""
        return {"min_batch_size": self._asked.places, "max_batch_size": self._asked.places}

    def get_num_bytes(self, batch: Sequence[PlaceRow]) -> int:
        return sum(item.place.prompt.nbytes for item in batch)

    def get_metrics_namespace(self) -> str:
        return "vqbeam_pictures"


class AddPictures(beam.DoFn):
    """A `DrawnRow` -> a dict for each picture, with its file."""

    def __init__(self, asked: Asked, image_column: str, image_format: str) -> None:
        self._asked = asked
        self._column = image_column
        self._format = image_format

    def setup(self) -> None:
        self._model = find(self._asked.model, self._asked.cache_dir).bart.name

    def process(self, drawn: DrawnRow) -> Iterable[Row]:
        batch = drawn.pictures
        names = [*MADE, *([CLIP_SCORE] if CLIP_SCORE in batch.schema.names else [])]
        made = batch.select(names).to_pylist()
        codes, pixels = to_rows(batch.column(ENCODING)), to_images(batch.column(PIXELS))
        texts = picture_texts(batch, self._model)
        for values, encoding, picture, text in zip(made, codes, pixels, texts, strict=True):
            image = encode_image(picture, self._format, text)
            yield {**drawn.row, **values, ENCODING: encoding, self._column: image}


def usable(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are given. Raises `UsageError` for a value that cannot be used."""
    try:
        checked = {name: option_value(name, value) for name, value in options.items()}
    except RowRejected as error:
        raise UsageError(error.message) from error
    return {name: value for name, value in checked.items() if value is not None}


def prompt_row(prompt: str | Row) -> Row:
    """A prompt as a dict. Raises `UsageError` for anything else."""
    if isinstance(prompt, str):
        return {PROMPT: prompt}
    if isinstance(prompt, Mapping):
        return dict(prompt)
    raise UsageError(f"GeneratePictures takes strings, or dicts with {PROMPT!r}; an element is {type(prompt).__name__}")


def canonical(row: Row) -> PromptRow:
    """A row as the readers of prompts make it; without a key of its own it has the prompt's.

    Raises `RowRejected` for half a surrogate pair, which no table and no file can hold.
    """
    prompt = row.get(PROMPT)
    for name in (PROMPT, "key"):
        try:
            str(row.get(name)).encode()
        except UnicodeEncodeError as error:
            raise RowRejected("broken_record", f"{name} is not valid text: {error}") from error
    key = prompt_key(prompt) if isinstance(prompt, str) else ""
    return fill_prompt(PromptRow(key, ""), row, SCHEMA)
