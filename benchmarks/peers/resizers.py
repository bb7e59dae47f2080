"""Other resizers and decoders of images, as one would call them for a square of a model; those that are installed."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from transforms.resampling import Box, Resampling, load, pixels_of, resized

Resize = Callable[[Image.Image, Box, int], np.ndarray]  # of an "RGB" image, its part and the side -> uint8 [N, N, 3]
Decode = Callable[[bytes], np.ndarray]  # uint8 [H, W, 3]


def _installed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def resizers() -> dict[str, Resize]:
    """Beside Pillow, which is the first. What it takes to bring an image there from Pillow counts."""
    found: dict[str, Resize] = {
        "Pillow": lambda image, box, side: np.asarray(image.resize((side, side), Resampling.LANCZOS, box))
    }
    resample, cv2 = load(), _installed("cv2")
    if resample is not None:

        def compiled(image: Image.Image, box: Box, side: int) -> np.ndarray:
            pixels = pixels_of(image)
            assert pixels is not None
            return resized(resample, pixels, (side, side), Resampling.LANCZOS, box)

        found["vqbeam's machine code"] = compiled
    found["torch, uint8, its Lanczos with antialias"] = by_torch
    found["torch, float32, the same"] = by_torch_in_floats
    if cv2 is not None:
        cv2.setNumThreads(1)
        found["OpenCV, INTER_AREA"] = partial(by_opencv, cv2, cv2.INTER_AREA)
        found["OpenCV, INTER_LANCZOS4, no antialias"] = partial(by_opencv, cv2, cv2.INTER_LANCZOS4)
    return found


def _part(image: Image.Image, box: Box) -> np.ndarray:
    """These know no box between pixels."""
    left, top, right, bottom = (round(edge) for edge in box)
    return np.asarray(image)[top:bottom, left:right]


def by_opencv(cv2: Any, flag: int, image: Image.Image, box: Box, side: int) -> np.ndarray:
    made: np.ndarray = cv2.resize(_part(image, box), (side, side), interpolation=flag)
    return made


def by_torch(image: Image.Image, box: Box, side: int) -> np.ndarray:
    channels_last = torch.from_numpy(_part(image, box).copy()).permute(2, 0, 1)[None]
    made = torch.nn.functional.interpolate(channels_last, (side, side), mode="lanczos", antialias=True)
    return made[0].permute(1, 2, 0).contiguous().numpy()


def by_torch_in_floats(image: Image.Image, box: Box, side: int) -> np.ndarray:
    channels_last = torch.from_numpy(_part(image, box).astype(np.float32)).permute(2, 0, 1)[None]
    made = torch.nn.functional.interpolate(channels_last, (side, side), mode="lanczos", antialias=True)
    return made[0].permute(1, 2, 0).round().clamp(0, 255).byte().contiguous().numpy()


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def decoders() -> dict[str, Decode]:
    """Of JPEGs in full, beside Pillow, which is the first."""
    found: dict[str, Decode] = {"Pillow": by_pillow}
    simplejpeg, cv2 = _installed("simplejpeg"), _installed("cv2")
    if simplejpeg is not None:
        found["simplejpeg"] = simplejpeg.decode_jpeg
    if cv2 is not None:
        found["OpenCV"] = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return found
