"""Images decoded from codes, kept in a file so that a training run decodes them once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from models.image_tokenizer import ImageTokenizer
from transforms.work.step import in_batches

PARTIAL = "decoding.partial.npy"


def decode_all(tokenizer: ImageTokenizer, codes: np.ndarray) -> np.ndarray:
    """Codes [N, T] -> uint8 [N, H, W, 3], in batches as large as the tokenizer takes."""
    return in_batches(tokenizer.decode, codes, tokenizer.batch_size)


def kept_in(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in `path`, mapped and not loaded. If the file is missing, it is computed and written whole first."""
    if not path.exists():
        partial = path.with_name(PARTIAL)
        np.save(partial, make())
        os.replace(partial, path)
    return np.load(path, mmap_mode="r")
