"""`Image.resize` in less time: by machine code that gives Pillow's own bytes, where there is numba."""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

Sides = tuple[int, int]
Box = tuple[float, float, float, float]  # left, top, right, bottom
Resample = Callable[[np.ndarray, Box, int, np.ndarray], None]
Resampling = Image.Resampling

KINDS = {Resampling.BOX: 0, Resampling.BICUBIC: 1, Resampling.LANCZOS: 2}  # those of `compiled_resampling`
PATIENCE = 2.0  # seconds of resizing by Pillow, after which machine code is loaded: to compile it takes about as long
TALL = 100  # times as high as wide: Pillow 12 weighs along the columns first where an image is higher than that
MOST_SIDE = 1 << 16  # of an image: sixteen rows of one lie in memory once more
CHECKED: tuple[tuple[Sides, Box, Sides], ...] = (  # sides, box and new sides of images of noise
    ((61, 47), (0.5, 0.0, 47.5, 47.0), (16, 16)),
    ((20, 31), (0.0, 0.0, 20.0, 31.0), (33, 47)),
)
log = logging.getLogger("vqbeam")


class Resizer:
    """Resizes with Pillow, and after `patience` seconds of that with machine code, so that small jobs never load it.

    Machine code is taken only if it gives the bytes of the Pillow that is installed. Safe to call from many threads.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._loading = threading.Lock()
        self._loaded = False
        self._resample: Resample | None = None

    @property
    def ready(self) -> bool:
        """Whether machine code was loaded, or found to be of no use."""
        return self._loaded

    def __call__(
        self, image: Image.Image, size: Sides, resampling: Image.Resampling, box: Box | None = None
    ) -> Image.Image:
        """`image.resize(size, resampling, box=box)`."""
        made = self._made(image, size, resampling, box)
        return Image.fromarray(made) if isinstance(made, np.ndarray) else made

    def pixels(
        self, image: Image.Image, size: Sides, resampling: Image.Resampling, box: Box | None = None
    ) -> np.ndarray:
        """The same in RGB: uint8 [h, w, 3], read-only."""
        made = self._made(image, size, resampling, box)
        if isinstance(made, np.ndarray):
            made.flags.writeable = False
            return made
        return np.asarray(made if made.mode == "RGB" else made.convert("RGB"))

    def _made(
        self, image: Image.Image, size: Sides, resampling: Image.Resampling, box: Box | None
    ) -> np.ndarray | Image.Image:
        """uint8 [h, w, 3] by machine code, or an image by Pillow."""
        box = box or (0.0, 0.0, float(image.width), float(image.height))
        if not suits(image, size, resampling, box):
            return image.resize(size, resampling, box=box)
        if not self.ready and self._patience <= 0 and self._loading.acquire(blocking=False):
            self._resample, self._loaded = load(), True
        pixels = None if self._resample is None else pixels_of(image)
        if self._resample is not None and pixels is not None:
            return resized(self._resample, pixels, size, resampling, box)
        start = time.perf_counter()
        result = image.resize(size, resampling, box=box)
        self._patience -= time.perf_counter() - start
        return result


def suits(image: Image.Image, size: Sides, resampling: Image.Resampling, box: Box) -> bool:
    """Whether machine code takes it: Pillow knows more modes and filters, and what to say of a box that is none."""
    return (
        image.mode == "RGB"
        and resampling in KINDS
        and (image.size != size or box != (0, 0, *size))  # which Pillow only copies
        and min(size) > 0
        and max(*image.size, *size) <= MOST_SIDE
        and image.height <= TALL * image.width
        and 0 <= box[0] < box[2] <= image.width
        and 0 <= box[1] < box[3] <= image.height
    )


def load() -> Resample | None:
    """The machine code, if it does what Pillow does; None if not, or without numba."""
    try:
        from transforms.compiled_resampling import resample
    except ImportError:
        return None
    except OSError as error:  # numba is not made for this system
        log.warning("Pillow alone resizes images: numba cannot be used here (%s)", error)
        return None
    try:
        if equals_pillow(resample):
            found: Resample = resample
            return found
        log.info(
            "Pillow alone resizes images: this one is older than 11.2, or resizes otherwise than machine code does"
        )
    except Exception as error:  # of the compiler; an image must not be rejected for it
        log.warning("Pillow alone resizes images: compiling failed (%s: %s)", type(error).__name__, error)
    return None


def pixels_of(image: Image.Image) -> np.ndarray | None:
    """uint32 [H, W], the memory of an RGB image itself, as long as there is the image; None if a large one lies in
    several pieces, or Pillow is older than 11.2."""
    if not hasattr(image, "__arrow_c_array__"):
        return None
    try:
        values: Any = pa.array(image)
    except ValueError:
        return None
    memory: Any = (ctypes.c_uint32 * (image.width * image.height)).from_address(values.values.buffers()[1].address)
    return np.frombuffer(memory, np.uint32).reshape(image.height, image.width)


def resized(resample: Resample, pixels: np.ndarray, size: Sides, resampling: Image.Resampling, box: Box) -> np.ndarray:
    """uint8 [h, w, 3]."""
    made = np.empty((size[1], size[0], 3), np.uint8)
    resample(pixels, box, KINDS[resampling], made)
    return made


def equals_pillow(resample: Resample) -> bool:
    """Whether it gives the bytes of the Pillow that is installed, for the images of `CHECKED`."""
    random = np.random.default_rng(0)
    for sides, box, size in CHECKED:
        image = Image.fromarray(random.integers(0, 256, (*sides[::-1], 3), np.uint8))
        pixels = pixels_of(image)
        if pixels is None:  # nor will those of others be there
            return False
        for resampling in KINDS:
            expected = image.resize(size, resampling, box=box)
            if not np.array_equal(resized(resample, pixels, size, resampling, box), np.asarray(expected)):
                return False
    return True


resize = Resizer()
