"""The model steps, from Arrow batch to Arrow batch, and the models that they share. No Beam, shards or files here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from models import find
from models.clip.text import ClipText
from models.image_tokenizer import ImageTokenizer, TokenizerOptions, TokenizerSpec
from models.whereabouts import PAINTING, tell
from transforms.batch import ENCODING, HEIGHT, PIXELS, WIDTH, code_dtype, fixed_lists

if TYPE_CHECKING:
    from models.clip.scorer import ClipScorer


@dataclass(frozen=True)
class ModelSettings:
    """Which model, and how it is run; every value is resolved. `threads` are torch's intra-op threads; `convolutions`
    is as `TorchCodec` has it, for networks of ours."""

    name: str
    cache_dir: str
    backend: str
    device: str
    dtype: str
    batch_size: int
    threads: int
    options: TokenizerOptions | None = None
    convolutions: str = "auto"

    @property
    def spec(self) -> TokenizerSpec:
        """The sizes of the model, read without its weights."""
        return find(self.name, self.cache_dir, self.options).tokenizer.spec

    def open(self) -> ImageTokenizer:
        """Find the weights by `name`, and load them."""
        return find(self.name, self.cache_dir, self.options).tokenizer.load(
            backend=self.backend,
            device=self.device,
            dtype=self.dtype,
            batch_size=self.batch_size,
            threads=self.threads,
            convolutions=self.convolutions,
        )


@dataclass(frozen=True)
class ClipSettings:
    """Which CLIP, and how it is run; every value is resolved. `threads` are torch's intra-op threads; `clip_text` is
    as `ClipScorer` has it."""

    name: str
    cache_dir: str
    device: str
    batch_size: int
    threads: int
    clip_text: ClipText = "raw"

    def open(self) -> ClipScorer:
        """Find the weights by `name`, and load them."""
        from models.clip.scorer import ClipScorer  # torch: not for a launcher that refuses the command

        checkpoint = find(self.name, self.cache_dir).clip
        return ClipScorer(
            checkpoint,
            device=self.device,
            batch_size=self.batch_size,
            threads=self.threads,
            clip_text=self.clip_text,
        )


class Step(Protocol):
    """Adds columns to a batch of at most `batch_size` rows. `setup` loads the weights, which a first call does too."""

    @property
    def batch_size(self) -> int: ...

    def setup(self) -> None: ...

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch: ...


@dataclass
class TokenizerStep:
    """The common part of tokenizer steps: settings travel to the worker, which loads the tokenizer once."""

    model: ModelSettings

    @property
    def batch_size(self) -> int:
        return self.model.batch_size

    @cached_property
    def tokenizer(self) -> ImageTokenizer:
        return self.model.open()

    def setup(self) -> None:
        _ = self.tokenizer


def in_batches(
    call: Callable[[Any], np.ndarray], rows: Sequence[Any] | np.ndarray, size: int, part: str = ""
) -> np.ndarray:
    """The results of `call` for at most `size` rows at a time, [N, ...] for N rows. Tells how far it is in a `part`."""
    made = []
    for start in range(0, len(rows), size):
        if part and size < len(rows):
            tell(part, start, len(rows))
        made.append(call(rows[start : start + size]))
    return np.concatenate(made)


def painted(tokenizer: ImageTokenizer, batch: pa.RecordBatch, codes: np.ndarray) -> tuple[pa.RecordBatch, np.ndarray]:
    """Add to N rows their codes, int [N, T], as `encoding`, and their images as `width`, `height` and `pixels`.

    Returns the images, too, uint8 [N, H, W, 3].
    """
    pixels = in_batches(tokenizer.decode, codes, tokenizer.batch_size, PAINTING)
    count, height, width, _ = pixels.shape
    batch = batch.append_column(ENCODING, fixed_lists(codes.astype(code_dtype(tokenizer.spec.codebook_size))))
    batch = batch.append_column(WIDTH, pa.array(np.full(count, width, np.int32)))
    batch = batch.append_column(HEIGHT, pa.array(np.full(count, height, np.int32)))
    return batch.append_column(PIXELS, fixed_lists(pixels)), pixels
