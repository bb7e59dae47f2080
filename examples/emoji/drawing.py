"""Draws and ranks images with the models of one folder, to measure them: `vqbeam generate` without Beam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.bart.generator import TokenGenerator
from models.bart.request import TokenRequest
from models.bart.text import TextEncoder
from models.clip.scorer import ClipScorer
from models.find import find
from models.image_tokenizer import ImageTokenizer
from models.uniforms import uniforms

DECODED_AT_ONCE = 64
SCORED_AT_ONCE = 64


@dataclass(frozen=True)
class Sampling:
    """How codes are drawn, the same for all prompts of a call."""

    guidance_scale: float
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0


class Artist:
    """A DALL·E BART, its text encoder and its VQGAN; draws the same image for the same prompt, seed and sample."""

    def __init__(self, folder: Path, *, prompts_per_batch: int = 64, samples: int = 1, dtype: str = "float32") -> None:
        model = find(str(folder), "")
        self.text: TextEncoder = model.bart.text_encoder()
        self.tokenizer: ImageTokenizer = model.tokenizer.load(device="cpu", dtype=dtype, batch_size=DECODED_AT_ONCE)
        self.prompts_per_batch, self.samples = prompts_per_batch, samples
        self.generator = TokenGenerator(
            model.bart.load(),
            codebook_size=self.tokenizer.spec.codebook_size,
            prompts_per_batch=prompts_per_batch,
            images_per_prompt=samples,
            dtype=dtype,
        )

    def codes(self, prompts: Sequence[str], sampling: Sampling, seed: int = 0) -> np.ndarray:
        """int32 [N, samples, T] for N prompts; a prompt is its own key."""
        length = self.generator.length
        drawn = []
        for start in range(0, len(prompts), self.prompts_per_batch):
            part = list(prompts[start : start + self.prompts_per_batch])
            text = self.text.encode(part, part)
            random = np.stack([[uniforms(seed, key, s, length) for s in range(self.samples)] for key in part])
            options = {name: np.full(len(part), value) for name, value in vars(sampling).items()}
            drawn.append(self.generator.generate(TokenRequest(text.input_ids, text.attention_mask, random, options)))
        return np.concatenate(drawn)

    def pixels(self, codes: np.ndarray) -> np.ndarray:
        """Codes [..., T] -> uint8 [..., H, W, 3]."""
        flat = codes.reshape(-1, codes.shape[-1])
        parts = [self.tokenizer.decode(flat[i : i + DECODED_AT_ONCE]) for i in range(0, len(flat), DECODED_AT_ONCE)]
        images = np.concatenate(parts)
        return images.reshape(*codes.shape[:-1], *images.shape[1:])


def best_by_clip(folder: Path, shown: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
    """Which of each prompt's images, uint8 [N, samples, H, W, 3], the CLIP of the folder scores highest: int64 [N]."""
    clip = ClipScorer(find(str(folder), "").clip, device="cpu", batch_size=SCORED_AT_ONCE)
    samples = shown.shape[1]
    flat = shown.reshape(-1, *shown.shape[2:])
    texts = [prompt for prompt in prompts for _ in range(samples)]
    scores = []
    for start in range(0, len(flat), SCORED_AT_ONCE):
        part = slice(start, start + SCORED_AT_ONCE)
        scores.append(clip.scores(np.stack([clip.preprocess(image) for image in flat[part]]), texts[part]))
    return np.concatenate(scores).reshape(-1, samples).argmax(1)
