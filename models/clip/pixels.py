"""Prepares images for a CLIP with Pillow, as its `preprocessor_config.json` says.

transformers' own processor takes twice as long, and divides in another order: its values differ in the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.errors import CheckpointError
from models.weights.native import read_json

PREPROCESSOR_NAME = "preprocessor_config.json"
# The defaults of transformers' CLIPImageProcessor: the values of the published models.
DEFAULT_SIDE = 224
DEFAULT_MEAN = (0.48145466, 0.4578275, 0.40821073)
DEFAULT_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ClipPixels:
    """The steps in order; None for one that is left out.

    `resize` is the shortest side or (height, width), `crop` the (height, width) of the middle that is kept, `rescale`
    the factor on levels of 0 to 255, `mean` and `std` a value a channel.
    """

    resize: int | tuple[int, int] | None
    resample: Image.Resampling
    crop: tuple[int, int] | None
    rescale: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width of every result; None if they depend on the image."""
        return self.crop or (self.resize if isinstance(self.resize, tuple) else None)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] -> float32 [3, h, w]. Raises `ValueError` for another kind of array."""
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise ValueError(f"expected pixels uint8 [H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
        image = Image.fromarray(pixels)
        if self.resize is not None:
            image = image.resize(self.resized(image.width, image.height), self.resample)
        if self.crop is not None:
            height, width = self.crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))  # black beyond the edges of the image
        values = np.array(image, dtype=np.float32)
        if self.rescale is not None:
            values *= self.rescale
        if self.mean is not None and self.std is not None:
            values -= np.array(self.mean, dtype=np.float32)
            values /= np.array(self.std, dtype=np.float32)
        return np.ascontiguousarray(values.transpose(2, 0, 1))

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of an image before its middle is cut out; for a narrow strip they are enormous."""
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        short = self.resize or min(width, height)
        if width <= height:
            return short, int(short * height / width)
        return int(short * width / height), short


def read_clip_pixels(folder: Path, image_size: int) -> ClipPixels:
    """Read `preprocessor_config.json` of a folder whose model takes squares of `image_size` pixels.

    Raises `CheckpointError` if the file is missing, cannot be used, or makes images of another size.
    """
    path = folder / PREPROCESSOR_NAME
    if not path.is_file():
        raise CheckpointError(f"{folder}: the CLIP has no {PREPROCESSOR_NAME} beside it; copy that as well")
    values = read_json(path)
    try:
        pixels = _parse(values)
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot be used ({type(error).__name__}: {error})") from error
    if pixels.shape != (image_size, image_size):
        made = "images of no fixed size" if pixels.shape is None else "x".join(map(str, pixels.shape)) + " pixels"
        raise CheckpointError(
            f"{path}: makes {made}, the model takes {image_size}x{image_size}; they do not belong together"
        )
    return pixels


def _parse(values: Mapping[str, Any]) -> ClipPixels:
    mean = std = None
    if values.get("do_normalize", True):
        mean = _channels(values.get("image_mean", DEFAULT_MEAN), "image_mean")
        std = _channels(values.get("image_std", DEFAULT_STD), "image_std")
        if min(std) <= 0:
            raise ValueError(f"image_std {list(std)} is not positive")
    return ClipPixels(
        resize=_size(values.get("size", {"shortest_edge": DEFAULT_SIDE})) if values.get("do_resize", True) else None,
        resample=Image.Resampling(values.get("resample", Image.Resampling.BICUBIC)),
        crop=_crop(values.get("crop_size", DEFAULT_SIDE)) if values.get("do_center_crop", True) else None,
        rescale=_number(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else None,
        mean=mean,
        std=std,
    )


def _size(size: Any) -> int | tuple[int, int]:
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        return _side(size["shortest_edge"])
    return _crop(size) if isinstance(size, Mapping) else _side(size)


def _crop(size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping):
        if set(size) != {"height", "width"}:
            raise ValueError(f"a size of {sorted(size)}; known are shortest_edge, and height with width")
        return _side(size["height"]), _side(size["width"])
    return _side(size), _side(size)


def _side(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"a side of {value!r} pixels")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _channels(values: Any, name: str) -> tuple[float, ...]:
    numbers = tuple(_number(value) for value in values)
    if len(numbers) != 3:
        raise ValueError(f"{name} has {len(numbers)} values for three channels")
    return numbers
