"""What one call of `TokenGenerator` is asked for: checked, padded to the full batch, a row a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.bart.sampling import Search

UNCONDITIONAL = (0, 2)  # begin and end: what the model was trained with in place of a caption
PAD = 1


@dataclass(frozen=True)
class TokenRequest:
    """P prompts, of which the first `prompts` are asked for, and N = P x S pictures of T codes, prompt by prompt."""

    prompts: int
    input_ids: np.ndarray  # int64 [P, L]
    attention_mask: np.ndarray  # int64 [P, L]
    uniforms: np.ndarray  # float64 [N, T]
    guidance: np.ndarray  # float32 [N]
    temperature: np.ndarray  # float32 [N]
    top_k: np.ndarray  # int64 [N]
    top_p: np.ndarray  # float32 [N]
    prefix: np.ndarray  # int64 [N, T]
    keep: np.ndarray  # int64 [N]
    search: Search


@dataclass(frozen=True)
class RequestShape:
    """The full batch: P prompts of L pieces, S pictures of T codes below `codebook_size` each."""

    prompts: int
    pieces: int
    pictures: int
    codes: int
    codebook_size: int
    guided: bool

    def request(
        self,
        input_ids: np.ndarray,
        attention_mask: np.ndarray,
        uniforms: np.ndarray,
        guidance: np.ndarray,
        temperature: np.ndarray,
        top_k: np.ndarray,
        top_p: np.ndarray,
        prefix: np.ndarray | None,
        keep: np.ndarray | None,
    ) -> TokenRequest:
        """Arguments of `TokenGenerator.generate` for p <= P prompts. Raises `ValueError` for what cannot be done."""
        prompts = len(input_ids)
        if not 0 < prompts <= self.prompts:
            raise ValueError(f"{prompts} prompts: this generator takes 1 to {self.prompts} at a time")
        picture_shape = (prompts, self.pictures, self.codes)
        if (prefix is None) != (keep is None):
            raise ValueError("prefix and keep go together: the codes, and how many of them are kept")
        prefix = np.zeros(picture_shape, np.int64) if prefix is None else np.asarray(prefix)
        keep = np.zeros(prompts, np.int64) if keep is None else np.asarray(keep)
        self._check_shapes(
            prompts,
            per_piece={"input_ids": input_ids, "attention_mask": attention_mask},
            per_code={"uniforms": uniforms, "prefix": prefix},
            per_prompt={
                "guidance": guidance, "temperature": temperature, "top_k": top_k, "top_p": top_p, "keep": keep
            },
        )  # fmt: skip
        _check("attention_mask", np.any(np.asarray(attention_mask) != 0, axis=1), "must show at least one piece")
        _check("uniforms", (uniforms >= 0) & (uniforms < 1), "must be in [0, 1)")
        _check("guidance", np.isfinite(guidance), "must be finite")
        if not self.guided:
            _check("guidance", np.asarray(guidance) == 1, "must be 1, since the generator was made without guidance")
        _check("temperature", np.isfinite(temperature) & (np.asarray(temperature) > 0), "must be above 0 and finite")
        _check("top_k", np.asarray(top_k) >= 0, "must be 0 (off) or above")
        _check("top_p", (np.asarray(top_p) > 0) & (np.asarray(top_p) <= 1), "must be above 0 and at most 1")
        _check("keep", (keep >= 0) & (keep <= self.codes), f"must be 0 to {self.codes}")
        kept = np.arange(self.codes) < keep[:, None, None]
        _check(
            "prefix", ~kept | ((prefix >= 0) & (prefix < self.codebook_size)), f"must be 0 to {self.codebook_size - 1}"
        )

        blank, seen = blank_caption(self.pieces)
        return TokenRequest(
            prompts=prompts,
            input_ids=self._padded(input_ids, np.int64, blank),
            attention_mask=self._padded(attention_mask, np.int64, seen),
            uniforms=self._padded(uniforms, np.float64, 0.0).reshape(-1, self.codes),
            guidance=self._per_picture(guidance, np.float32),
            temperature=self._per_picture(temperature, np.float32),
            top_k=self._per_picture(top_k, np.int64),
            top_p=self._per_picture(top_p, np.float32),
            prefix=self._padded(prefix, np.int64, 0).reshape(-1, self.codes),
            keep=self._per_picture(keep, np.int64),
            search=Search.covering(np.asarray(top_k), np.asarray(top_p)),
        )

    def _check_shapes(
        self,
        prompts: int,
        per_piece: dict[str, np.ndarray],
        per_code: dict[str, np.ndarray],
        per_prompt: dict[str, np.ndarray],
    ) -> None:
        expected: tuple[tuple[dict[str, np.ndarray], tuple[int, ...]], ...] = (
            (per_piece, (prompts, self.pieces)),
            (per_code, (prompts, self.pictures, self.codes)),
            (per_prompt, (prompts,)),
        )
        for arguments, shape in expected:
            for name, value in arguments.items():
                if np.shape(value) != shape:
                    raise ValueError(f"{name} has shape {np.shape(value)}, expected {shape}")

    def _padded(self, values: np.ndarray, dtype: type[np.generic], filler: object) -> np.ndarray:
        """[p, ...] -> [P, ...]."""
        values = np.asarray(values)
        padded = np.empty((self.prompts, *values.shape[1:]), dtype)
        padded[: len(values)] = values
        padded[len(values) :] = filler
        return padded

    def _per_picture(self, values: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
        """[p] -> [P x S]; prompts that nobody asked for get 1, which is cheap and harmless."""
        return np.repeat(self._padded(values, dtype, 1), self.pictures)


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
