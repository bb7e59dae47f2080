"""What pipelines and programs ask of the models. The models are looked for in the worker. Beam is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models import find
from models.bart.checkpoint import check_pair
from models.bart.generator import fastest_dtype
from models.bart.options import OPTIONS, SAMPLING, Drawing, read_generation_defaults
from models.clip.text import ClipText
from models.devices import FASTEST, painting_dtype, resolve_device, resolve_drawing_dtype
from models.image_tokenizer import TokenizerOptions
from transforms.batch import IMAGES, KEY, PROMPT, SEED
from transforms.errors import RowRejected, UsageError
from transforms.inputs.options import option_value
from transforms.inputs.request import InputSchema
from transforms.inputs.rows import Row as PromptRow
from transforms.inputs.rows import fill_prompt, prompt_key
from transforms.work.generate import GeneratorSettings
from transforms.work.step import ModelSettings

CACHE_DIR = "~/.cache/vqbeam"
BATCH_SIZE = 32
SCHEMA = InputSchema("prompts", caption=PROMPT, key="key", options=tuple(OPTIONS))


def check_batch_size(batch_size: int) -> None:
    """Raises `UsageError` for a batch without rows."""
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")


def tokenizer_settings(
    model: str,
    cache_dir: str,
    backend: str,
    device: str,
    dtype: str,
    batch_size: int,
    threads: int | None,
    options: TokenizerOptions | None = None,
) -> ModelSettings:
    check_batch_size(batch_size)
    return ModelSettings(model, cache_dir, backend, device, dtype, batch_size, threads or 0, options)


@dataclass(frozen=True)
class Asked:
    """The user's request; `options` lacks those that are left to the model. It travels to the workers, which resolve
    it: the machine that builds the pipeline may lack the models."""

    model: str
    vqgan: str
    clip: str | None
    clip_text: ClipText
    options: Mapping[str, Any]
    batch_size: int
    device: str
    dtype: str
    threads: int
    cache_dir: str

    @property
    def images_per_slot(self) -> int:
        return min(int(self.options[IMAGES]), self.batch_size)

    @property
    def slots(self) -> int:
        """The slots of a batch."""
        return self.batch_size // self.images_per_slot

    def drawing(self) -> Drawing:
        """The options of a prompt that has none; opens the checkpoint of the BART, without its weights."""
        return read_generation_defaults(find(self.model, self.cache_dir).bart.path) | dict(self.options)

    def settings(self) -> GeneratorSettings:
        """Finds the models and checks that they go together. Raises `CheckpointError` and `ConfigError`."""
        device = resolve_device(self.device)
        spec, config = find(self.vqgan, self.cache_dir).tokenizer.spec, find(self.model, self.cache_dir).bart.config
        check_pair(config, spec)
        if self.dtype == FASTEST:
            dtype = fastest_dtype(config, self.batch_size, device)
        else:
            dtype = resolve_drawing_dtype(self.dtype, device)
        return GeneratorSettings(
            bart=self.model,
            vqgan=ModelSettings(
                name=self.vqgan,
                cache_dir=self.cache_dir,
                backend="torch",
                device=device,
                dtype=painting_dtype(dtype, device) if config.is_large(dtype) else dtype,
                batch_size=min(self.batch_size, spec.batch_size(device)),
                threads=self.threads,
            ),
            slots=self.slots,
            images_per_slot=self.images_per_slot,
            guided=self.drawing()["guidance_scale"] != 1,
            clip=self.clip,
            clip_text=self.clip_text,
            dtype=dtype,
        )


def usable(images: int, seed: int, sampling: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are given. Raises `UsageError` for an unknown one, and for a value that cannot be used."""
    unknown = sampling.keys() - SAMPLING.keys()
    if unknown:
        raise UsageError(f"unknown option {min(unknown)!r}; images are drawn by {', '.join(SAMPLING)}")
    options = {IMAGES: images, SEED: seed, **sampling}
    try:
        checked = {name: option_value(name, value) for name, value in options.items()}
    except RowRejected as error:
        raise UsageError(error.message) from error
    return {name: value for name, value in checked.items() if value is not None}


def canonical(row: Mapping[str, Any]) -> PromptRow:
    """A row as the readers of prompts make it; if it lacks a key, one is made from the prompt.

    Raises `RowRejected` for half a surrogate pair, which no table and no file can hold.
    """
    prompt = row.get(PROMPT)
    for name in (PROMPT, KEY):
        try:
            str(row.get(name)).encode()
        except UnicodeEncodeError as error:
            raise RowRejected("broken_record", f"{name} is not valid text: {error}") from error
    key = prompt_key(prompt) if isinstance(prompt, str) else ""
    return fill_prompt(PromptRow(key, ""), row, SCHEMA)
