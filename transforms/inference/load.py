"""Tokenizers and generators for programs that need no pipeline: `vqbeam.load` and `vqbeam.load_generator`.

They run the steps of the commands, so that codes and images equal the commands'. Beam is not imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from PIL import Image

from models.image_tokenizer import ImageTokenizer
from transforms.errors import UsageError
from transforms.images import ImageOptions, Resize, decode_image, resized_image
from transforms.work.step import ModelSettings

CACHE_DIR = "~/.cache/vqbeam"
BATCH_SIZE = 32
ImageLike: TypeAlias = "Image.Image | np.ndarray | bytes"


class Tokenizer:
    """An image tokenizer with its weights loaded; see `load`. Safe to call from several threads."""

    def __init__(self, codec: ImageTokenizer, resize: Resize) -> None:
        self._codec = codec
        self._options = ImageOptions(size=codec.spec.resolution, resize=resize)

    @property
    def name(self) -> str:
        return self._codec.spec.name

    @property
    def resolution(self) -> int:
        """The side in pixels of the square images that the model reads and writes."""
        return self._codec.spec.resolution

    @property
    def codes_per_image(self) -> int:
        return self._codec.spec.codes_per_image

    @property
    def codebook_size(self) -> int:
        return self._codec.spec.codebook_size

    def encode(self, images: Sequence[ImageLike]) -> np.ndarray:
        """N images -> codes int32 [N, codes_per_image] in raster order.

        An image is a PIL image, an array uint8 [H, W, 3] or [H, W], or the bytes of an image file. Each is brought to
        the model's square as `vqbeam encode` does; for bytes the codes equal the command's. Raises `RowRejected` for
        bytes that are no image, `UsageError` for another kind of value, `ConfigError` if the model has no encoder.
        """
        pixels = [self._pixels(number, image) for number, image in enumerate(images)]
        size = self._codec.batch_size
        parts = [self._codec.encode(np.stack(pixels[start : start + size])) for start in range(0, len(pixels), size)]
        return np.concatenate(parts) if parts else np.zeros((0, self.codes_per_image), np.int32)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes [N, codes_per_image], any integer type -> images uint8 [N, resolution, resolution, 3].

        Raises `ValueError` for codes of another shape or outside of the codebook.
        """
        codes = np.asarray(codes)
        size = self._codec.batch_size
        parts = [self._codec.decode(codes[start : start + size]) for start in range(0, len(codes), size)]
        return np.concatenate(parts) if parts else np.zeros((0, self.resolution, self.resolution, 3), np.uint8)

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
            raise UsageError(f"image {number} is {type(image).__name__}, expected a PIL image, a uint8 array or bytes")
        return resized_image(image, self._options)


def load(
    model: str = "emoji",
    *,
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int = BATCH_SIZE,
    threads: int | None = None,
    resize: Resize = "center_crop",
    cache_dir: str = CACHE_DIR,
) -> Tokenizer:
    """The image tokenizer of a model, ready to encode and decode.

    `model` is a name as after `--model`: "emoji", a folder, a URL or hf://owner/name. Each batch is computed at the
    full `batch_size`, so that a row does not depend on its neighbours. `threads` are those within an operation on a
    CPU, by default torch's. Raises `CheckpointError` and `ConfigError`.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    settings = ModelSettings(model, cache_dir, "torch", device, dtype, batch_size, threads or 0)
    return Tokenizer(settings.open(), resize)
