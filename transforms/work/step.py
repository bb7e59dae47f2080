"""The model steps: from Arrow batch to Arrow batch. They know nothing of Beam, shards or files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from models import find
from models.image_tokenizer import ImageTokenizer
from transforms.batch import CODES, ENCODING, PIXELS, code_dtype, fixed_lists, to_images, to_rows


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

    def open(self) -> ImageTokenizer:
        """Find the weights by `name`, and load them."""
        return find(self.name, self.cache_dir, self.pixel_range).tokenizer.load(
            backend=self.backend,
            device=self.device,
            dtype=self.dtype,
            batch_size=self.batch_size,
            threads=self.threads,
        )


class Step(Protocol):
    """`setup` loads weights, once a process; the call adds columns to a batch of at most `batch_size` rows."""

    @property
    def batch_size(self) -> int: ...

    def setup(self) -> None: ...

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch: ...


@dataclass
class ModelStep:
    """What the steps of a VQGAN share: settings that travel to the worker, and the model once it is loaded there."""

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
            raise RuntimeError("a step is called before its setup()")
        return self.codec


class EncodeStep(ModelStep):
    """`pixels` -> `encoding`: VQGAN codes in raster order, fixed-size list of uint16 (int32 past 65,536 codes)."""

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        codec = self.loaded()
        codes = codec.encode(to_images(batch.column(PIXELS)))
        column = fixed_lists(codes.astype(code_dtype(codec.spec.codebook_size)))
        return batch.drop_columns([PIXELS]).append_column(ENCODING, column)


class DecodeStep(ModelStep):
    """`codes` -> `pixels`."""

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        pixels = self.loaded().decode(to_rows(batch.column(CODES)))
        return batch.drop_columns([CODES]).append_column(PIXELS, fixed_lists(pixels))
