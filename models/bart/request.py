"""The arrays of one call of `TokenGenerator`: checked, then padded to the full batch with one row per image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.bart.options import SAMPLING
from models.bart.text import BEGIN, END, PAD

UNCONDITIONAL = (BEGIN, END)  # the model was trained with them in place of a caption


@dataclass(frozen=True)
class TokenRequest:
    """The arrays of one call, for p prompts of L pieces and S images of T codes each.

    The first `keep` codes of `prefix` are taken unchanged, and the rest of the image is completed.
    """

    input_ids: np.ndarray  # int [p, L], of `models/bart/text.py`
    attention_mask: np.ndarray  # int [p, L]
    uniforms: np.ndarray  # float64 [p, S, T] in [0, 1), of `models/uniforms.py`
    options: Mapping[str, np.ndarray]  # [p] for each of `SAMPLING`
    prefix: np.ndarray | None = None  # int [p, S, T]
    keep: np.ndarray | None = None  # int [p]


@dataclass(frozen=True)
class RequestShape:
    """The full batch: P prompts of L pieces, S images of T codes below `codebook_size` each."""

    prompts: int
    pieces: int
    images: int
    codes: int
    codebook_size: int
    guided: bool

    def padded(self, request: TokenRequest) -> TokenRequest:
        """The request of p <= P prompts for the full batch, as the generator's buffers take it.

        Captions become int64 [P, L]; all else has one row per image: [P x S, T] or [P x S], in the buffers' types.
        Raises `ValueError` for arrays of other shapes, and for values out of range.
        """
        prompts = len(request.input_ids)
        if not 0 < prompts <= self.prompts:
            raise ValueError(f"{prompts} prompts: this generator takes 1 to {self.prompts} at a time")
        if (request.prefix is None) != (request.keep is None):
            raise ValueError("prefix and keep go together: the codes, and how many of them are kept")
        image_shape = (prompts, self.images, self.codes)
        prefix = np.zeros(image_shape, np.int64) if request.prefix is None else np.asarray(request.prefix)
        keep = np.zeros(prompts, np.int64) if request.keep is None else np.asarray(request.keep)
        for shape, arrays in (
            ((prompts, self.pieces), {"input_ids": request.input_ids, "attention_mask": request.attention_mask}),
            (image_shape, {"uniforms": request.uniforms, "prefix": prefix}),
            ((prompts,), {**{name: request.options[name] for name in SAMPLING}, "keep": keep}),
        ):
            for name, array in arrays.items():
                if np.shape(array) != shape:
                    raise ValueError(f"{name} has shape {np.shape(array)}, expected {shape}")
        _check("attention_mask", np.any(request.attention_mask != 0, axis=1), "must show at least one piece")
        _check("uniforms", (request.uniforms >= 0) & (request.uniforms < 1), "must be in [0, 1)")
        for name, option in SAMPLING.items():
            fits = [math.isfinite(value) and option.fits(value) for value in request.options[name].tolist()]
            _check(name, np.array(fits), f"must be {option.wanted}")
        if not self.guided:
            good = request.options["guidance_scale"] == 1
            _check("guidance_scale", good, "must be 1, since the generator was made without guidance")
        _check("keep", (keep >= 0) & (keep <= self.codes), f"must be 0 to {self.codes}")
        free = np.arange(self.codes) >= keep[:, None, None]
        _check(
            "prefix", free | ((prefix >= 0) & (prefix < self.codebook_size)), f"must be 0 to {self.codebook_size - 1}"
        )

        blank, seen = blank_caption(self.pieces)
        return TokenRequest(
            input_ids=self._padded(request.input_ids, np.int64, blank),
            attention_mask=self._padded(request.attention_mask, np.int64, seen),
            uniforms=self._padded(request.uniforms, np.float64, 0.0).reshape(-1, self.codes),
            options={
                name: self._per_image(request.options[name], np.int64 if option.is_whole else np.float32)
                for name, option in SAMPLING.items()
            },
            prefix=self._padded(prefix, np.int64, 0).reshape(-1, self.codes),
            keep=self._per_image(keep, np.int64),
        )

    def _padded(self, values: np.ndarray, dtype: type[np.generic], filler: object) -> np.ndarray:
        """[p, ...] -> [P, ...]."""
        values = np.asarray(values)
        padded = np.empty((self.prompts, *values.shape[1:]), dtype)
        padded[: len(values)] = values
        padded[len(values) :] = filler
        return padded

    def _per_image(self, values: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
        """[p] -> [P x S]; unused prompts get 1, which is cheap and harmless."""
        return np.repeat(self._padded(values, dtype, 1), self.images)


def blank_caption(length: int = len(UNCONDITIONAL)) -> tuple[np.ndarray, np.ndarray]:
    """The unconditional input, padded to `length`, and its mask: int64 [1, length] both."""
    seen = np.arange(length)[None] < len(UNCONDITIONAL)
    ids = np.full((1, length), PAD, np.int64)
    ids[seen] = UNCONDITIONAL
    return ids, seen.astype(np.int64)


def _check(name: str, good: np.ndarray, expected: str) -> None:
    bad = np.argwhere(~np.asarray(good))
    if len(bad):
        raise ValueError(f"{name} at {tuple(int(i) for i in bad[0])}: {expected}")
