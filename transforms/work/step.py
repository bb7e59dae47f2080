"""The model steps: from Arrow batch to Arrow batch. They know nothing of Beam, shards or files."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa

from models.find import locate_model
from models.model_folders import vqgan_place
from models.vqgan.codec import ImageCodec, open_codec

PIXELS = "pixels"  # uint8 [H*W*3] a row, square RGB pictures
CODES = "codes"  # int32 [T] a row
ENCODING = "encoding"  # what a token table calls its codes, as DALL·E mini's training code reads them


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

    def open(self) -> ImageCodec:
        """Find the weights, wherever `name` says they are, and load them."""
        folder = vqgan_place(locate_model(self.name, self.cache_dir))
        return open_codec(
            folder,
            backend=self.backend,
            device=self.device,
            dtype=self.dtype,
            batch_size=self.batch_size,
            threads=self.threads,
            pixel_range=self.pixel_range,
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
    codec: ImageCodec | None = field(default=None, repr=False)

    @property
    def batch_size(self) -> int:
        return self.model.batch_size

    def setup(self) -> None:
        if self.codec is None:
            self.codec = self.model.open()

    def loaded(self) -> ImageCodec:
        """The model. Raises `RuntimeError` before `setup`."""
        if self.codec is None:
            raise RuntimeError("a step is called before its setup()")
        return self.codec


class EncodeStep(ModelStep):
    """`pixels` -> `encoding`: VQGAN codes in raster order, fixed-size list of uint16 (int32 past 65,536 codes)."""

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        codec = self.loaded()
        codes = codec.encode(to_pictures(batch.column(PIXELS)))
        column = fixed_lists(codes.astype(code_dtype(codec.config.n_embed)))
        return batch.drop_columns([PIXELS]).append_column(ENCODING, column)


class DecodeStep(ModelStep):
    """`codes` -> `pixels`."""

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        pixels = self.loaded().decode(to_rows(batch.column(CODES)))
        return batch.drop_columns([CODES]).append_column(PIXELS, fixed_lists(pixels))


def code_dtype(codebook_size: int) -> np.dtype:
    """The narrowest type that DALL·E mini's tools read and that holds every id."""
    return np.dtype(np.uint16 if codebook_size <= 1 << 16 else np.int32)


def fixed_lists(rows: np.ndarray) -> pa.FixedSizeListArray:
    """[N, ...] -> N fixed-size lists, without a copy."""
    flat = np.ascontiguousarray(rows).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), math.prod(rows.shape[1:]))


def to_rows(column: pa.FixedSizeListArray) -> np.ndarray:
    """N fixed-size lists -> [N, size], without a copy."""
    values = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1)


def to_pictures(column: pa.FixedSizeListArray) -> np.ndarray:
    """A `pixels` column -> uint8 [N, H, W, 3]."""
    rows = to_rows(column)
    side = round((rows.shape[1] // 3) ** 0.5)
    return rows.reshape(len(rows), side, side, 3)
