"""Images decoded from codes, kept in a file so that a training run decodes them once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from models.image_tokenizer import ImageTokenizer

PARTIAL = "decoding.partial.npy"


def decode_all(codec: ImageTokenizer, codes: np.ndarray) -> np.ndarray:
    """Codes [N, T] -> uint8 [N, H, W, 3], a batch of the codec at a time."""
    parts = [codec.decode(codes[start : start + codec.batch_size]) for start in range(0, len(codes), codec.batch_size)]
    return np.concatenate(parts)


def kept_in(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in `path`, mapped and not loaded; made and written whole first where there is none."""
    if not path.exists():
        partial = path.with_name(PARTIAL)
        np.save(partial, make())
        os.replace(partial, path)
    return np.load(path, mmap_mode="r")
