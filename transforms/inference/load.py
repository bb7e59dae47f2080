"""Tokenizers and generators for programs that need no pipeline: `vqbeam.load` and `vqbeam.load_generator`.

They run the steps of the commands, so that codes and images equal the commands'. Beam is not imported.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image

from models.image_tokenizer import ImageTokenizer, PixelRange, TokenizerOptions
from transforms.batch import PIXELS, to_images
from transforms.errors import UsageError
from transforms.image_options import Resize, image_options
from transforms.images import decode_image, resized_image
from transforms.inference.asked import (
    BATCH_SIZE,
    CACHE_DIR,
    SCHEMA,
    Asked,
    canonical,
    check_batch_size,
    tokenizer_settings,
    usable,
)
from transforms.inputs.rows import batches
from transforms.work.generate import GenerateStep
from transforms.work.prompts import prepare_prompts, slot_batches
from transforms.work.step import in_batches

ImageLike: TypeAlias = "Image.Image | np.ndarray | bytes"


class Tokenizer:
    """An image tokenizer with its weights loaded; see `load`. Safe to call from several threads."""

    def __init__(self, tokenizer: ImageTokenizer, resize: Resize | Literal["auto"]) -> None:
        self._tokenizer, spec = tokenizer, tokenizer.spec
        self._options = image_options(spec.resolution, spec.preprocessing, {"resize": resize})

    @property
    def name(self) -> str:
        return self._tokenizer.spec.name

    @property
    def resolution(self) -> int:
        """The side in pixels of the square images that the model reads and writes."""
        return self._tokenizer.spec.resolution

    @property
    def codes_per_image(self) -> int:
        return self._tokenizer.spec.codes_per_image

    @property
    def codebook_size(self) -> int:
        return self._tokenizer.spec.codebook_size

    def encode(self, images: Sequence[ImageLike]) -> np.ndarray:
        """N images -> codes int32 [N, codes_per_image] in raster order.

        An image is a PIL image, an array uint8 [H, W, 3] or [H, W], or the bytes of an image file. Each is brought to
        the model's square as `vqbeam encode` does; for bytes the codes equal the command's. Raises `RowRejected` for
        bytes that are no image, `UsageError` for another kind of value, `ConfigError` if the model has no encoder.
        """
        if _is_one(images):
            raise UsageError("encode takes a list of images, and this is one: give [image]")
        pixels = [self._pixels(number, image) for number, image in enumerate(images)]
        if not pixels:
            return np.zeros((0, self.codes_per_image), np.int32)
        encode = self._tokenizer.encode
        return in_batches(lambda part: encode(np.stack(part)), pixels, self._tokenizer.batch_size)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes [N, codes_per_image], any integer type -> images uint8 [N, resolution, resolution, 3].

        Raises `ValueError` for codes of another shape or outside of the codebook.
        """
        codes = np.asarray(codes)
        if not len(codes):
            return np.zeros((0, self.resolution, self.resolution, 3), np.uint8)
        return in_batches(self._tokenizer.decode, codes, self._tokenizer.batch_size)

    def _pixels(self, number: int, image: ImageLike) -> np.ndarray:
        if isinstance(image, bytes | bytearray | memoryview):
            return decode_image(bytes(image), self._options).pixels
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
                raise UsageError(
                    f"image {number} is {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3] or [H, W]"
                )
            image = Image.fromarray(np.ascontiguousarray(image))
        if not isinstance(image, Image.Image):
            of_path = "; of a file give open(path, 'rb').read()" if isinstance(image, str | os.PathLike) else ""
            found = type(image).__name__
            raise UsageError(f"image {number} is {found}, expected a PIL image, a uint8 array or bytes{of_path}")
        return resized_image(image, self._options)


def _is_one(images: object) -> bool:
    """Whether this is one image instead of several: an array [H, W, 3] would be read as H grey ones."""
    if isinstance(images, np.ndarray):
        return images.ndim == 2 or (images.ndim == 3 and images.shape[2] == 3)
    return isinstance(images, Image.Image | bytes | bytearray | memoryview | str)


def load(
    model: str = "emoji",
    *,
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int = BATCH_SIZE,
    threads: int | None = None,
    resize: Resize | Literal["auto"] = "auto",
    cache_dir: str = CACHE_DIR,
    pixel_range: PixelRange | None = None,
    image_size: int | None = None,
    weights: str | None = None,
    tokenizer: str | None = None,
) -> Tokenizer:
    """The image tokenizer of a model, ready to encode and decode.

    `model` is a name as the commands take it: "emoji", a folder, a URL or hf://owner/name. Each batch is computed at
    the full `batch_size`, so that a row does not depend on its neighbours. `threads` are those within an operation on a
    CPU, by default torch's. `resize` "auto" is the model's own; `pixel_range`, `image_size`, `weights` and
    `tokenizer` are as the flags of `vqbeam encode`. Raises `CheckpointError` and `ConfigError`.
    """
    asked = TokenizerOptions(pixel_range, image_size, weights, tokenizer=tokenizer)
    settings = tokenizer_settings(model, cache_dir, "torch", device, dtype, batch_size, threads, asked)
    return Tokenizer(settings.open(), resize)


class Generator:
    """A DALL·E mini model that draws images for prompts; see `load_generator`. Safe to call from several threads."""

    def __init__(self, asked: Asked, batch_size: int | None) -> None:
        self._asked = asked
        self._batch_size = batch_size
        self._step = GenerateStep(asked.settings())
        self._text = self._step.settings.open_text()
        self._lock = Lock()

    def generate(
        self,
        prompts: Sequence[str],
        *,
        seed: int = 0,
        images_per_prompt: int = 1,
        **sampling: float | None,
    ) -> np.ndarray:
        """N prompts -> images uint8 [N * images_per_prompt, H, W, 3], those of a prompt one after the other.

        An image depends on model, options, seed, prompt and its number among those of the prompt, and equals that of
        `vqbeam generate --key_from prompt` at the same batch size. `sampling` takes `guidance_scale`, `temperature`,
        `top_k` and `top_p`; the model's own apply to those left out. Raises `RowRejected` for a prompt that cannot be
        drawn, `UsageError` for an option out of its range.
        """
        if isinstance(prompts, str):
            raise UsageError("generate takes a list of prompts, not a string")
        options = usable(images_per_prompt, seed, sampling)
        images = len(prompts) * images_per_prompt
        size = self._batch_size or min(BATCH_SIZE, 1 << max(0, images - 1).bit_length())
        asked = replace(self._asked, options=options, batch_size=size)
        drawing = asked.drawing()
        prepared = [
            prepare_prompts(batch, 0, self._text, drawing)
            for batch in batches((canonical({"prompt": prompt}) for prompt in prompts), SCHEMA)
        ]
        for part in prepared:
            if part.refusals:
                raise part.refusals[0].cause
        with self._lock:
            step = self._step_for(asked)
            parts = [
                to_images(step(batch).column(PIXELS))
                for batch in slot_batches(prepared, asked.slots, asked.images_per_slot)
            ]
        if not parts:
            side = self._step.settings.vqgan.spec.resolution
            return np.zeros((0, side, side, 3), np.uint8)
        return np.concatenate(parts)

    def _step_for(self, asked: Asked) -> GenerateStep:
        """The step for batches of this shape; only the last one is kept."""
        settings = asked.settings()
        if settings != self._step.settings:
            self._step = GenerateStep(settings)
        self._step.setup()
        return self._step


def load_generator(
    model: str = "emoji",
    *,
    vqgan: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
    cache_dir: str = CACHE_DIR,
) -> Generator:
    """The generator of a model, which loads its weights at the first prompts.

    `model` and `vqgan` are names as `vqbeam generate` takes them. `batch_size` images are computed at once, by
    default as many as a call needs, up to 32; name it if calls of different lists are to agree byte for byte. Raises
    `CheckpointError` and `ConfigError`.
    """
    if batch_size is not None:
        check_batch_size(batch_size)
    asked = Asked(
        model=model,
        vqgan=vqgan or model,
        clip=None,
        clip_text="raw",
        options=usable(1, 0, {}),
        batch_size=batch_size or BATCH_SIZE,
        device=device,
        dtype=dtype,
        threads=threads or 0,
        cache_dir=cache_dir,
    )
    return Generator(asked, batch_size)
