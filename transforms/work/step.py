"""The model steps, from Arrow batch to Arrow batch, and the models that they share. No Beam, shards or files here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa

from models import find
from models.clip.scorer import ClipScorer, open_clip
from models.image_tokenizer import ImageTokenizer, TokenizerSpec
from transforms.batch import ENCODING, HEIGHT, PIXELS, WIDTH, code_dtype, fixed_lists

NOT_SET_UP = "a step is called before its setup()"


@dataclass(frozen=True)
class ModelSettings:
    """Which model, and how it is run; every value is resolved. `threads` are torch's intra-op threads."""

    name: str
    cache_dir: str
    backend: str
    device: str
    dtype: str
    batch_size: int
    threads: int
    pixel_range: tuple[float, float] | None = None

    @property
    def spec(self) -> TokenizerSpec:
        """The sizes of the model, read without its weights."""
        return find(self.name, self.cache_dir, self.pixel_range).tokenizer.spec

    def open(self) -> ImageTokenizer:
        """Find the weights by `name`, and load them."""
        return find(self.name, self.cache_dir, self.pixel_range).tokenizer.load(
            backend=self.backend,
            device=self.device,
            dtype=self.dtype,
            batch_size=self.batch_size,
            threads=self.threads,
        )


@dataclass(frozen=True)
class ClipSettings:
    """Which CLIP, and how it is run; every value is resolved. `threads` are torch's intra-op threads."""

    name: str
    cache_dir: str
    device: str
    batch_size: int
    threads: int

    def open(self) -> ClipScorer:
        """Find the weights by `name`, and load them."""
        checkpoint = find(self.name, self.cache_dir).clip
        return open_clip(checkpoint, device=self.device, batch_size=self.batch_size, threads=self.threads or None)


class Step(Protocol):
    """`setup` loads weights, once a process; the call adds columns to a batch of at most `batch_size` rows."""

    @property
    def batch_size(self) -> int: ...

    def setup(self) -> None: ...

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch: ...


@dataclass
class ModelStep:
    """The common part of tokenizer steps: settings that travel to the worker, and the model once it is loaded there."""

    model: ModelSettings
    codec: ImageTokenizer | None = field(default=None, repr=False)

    @property
    def batch_size(self) -> int:
        return self.model.batch_size

    def setup(self) -> None:
        if self.codec is None:
            self.codec = self.model.open()

    def loaded(self) -> ImageTokenizer:
        """The model. Raises `RuntimeError` before `setup`."""
        if self.codec is None:
            raise RuntimeError(NOT_SET_UP)
        return self.codec


def paint(codec: ImageTokenizer, codes: np.ndarray) -> np.ndarray:
    """Codes [N, T] -> uint8 [N, H, W, 3], as many at once as the codec takes."""
    size = codec.batch_size
    return np.concatenate([codec.decode(codes[start : start + size]) for start in range(0, len(codes), size)])


def painted(codec: ImageTokenizer, batch: pa.RecordBatch, codes: np.ndarray) -> tuple[pa.RecordBatch, np.ndarray]:
    """Add to N rows their codes, int [N, T], as `encoding`, and their images as `width`, `height` and `pixels`.

    Returns the images, too, uint8 [N, H, W, 3].
    """
    pixels = paint(codec, codes)
    count, height, width, _ = pixels.shape
    batch = batch.append_column(ENCODING, fixed_lists(codes.astype(code_dtype(codec.spec.codebook_size))))
    batch = batch.append_column(WIDTH, pa.array(np.full(count, width, np.int32)))
    batch = batch.append_column(HEIGHT, pa.array(np.full(count, height, np.int32)))
    return batch.append_column(PIXELS, fixed_lists(pixels)), pixels
