"""How many codes and images of `vqbeam generate` change with the batch size, the threads and the dtype on a CPU.

python -m benchmarks.same_images            the emoji model at its default sampling, about two minutes
python -m benchmarks.same_images --quick    a few images of a tiny network, some seconds
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.support import machine
from benchmarks.support.emoji import MODEL, PROMPTS
from benchmarks.support.random_generator import TINY, prompts, write_generator
from models.bart.generator import TokenGenerator
from models.bart.options import read_generation_defaults
from models.bart.request import TokenRequest
from models.find import find
from models.uniforms import uniforms
from transforms.work.step import in_batches


@dataclass(frozen=True)
class Way:
    """How the networks are run."""

    batch: int
    threads: int
    dtype: str

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.threads} thread{'s' if self.threads > 1 else ''}, {self.dtype}"


USUAL = Way(32, 2, "float32")
OTHERS = (
    replace(USUAL),
    replace(USUAL, batch=8),
    replace(USUAL, threads=1),
    replace(USUAL, dtype="bfloat16"),
    replace(USUAL, dtype="bfloat16", batch=8),
)


@dataclass(frozen=True)
class Drawn:
    codes: np.ndarray  # int32 [N, T]
    pixels: np.ndarray  # uint8 [N, H, W, 3]
    repainted: np.ndarray  # the same of the first way's codes


class Models:
    """The models of a folder, their prompts, and the options that decide the images."""

    def __init__(self, folder: Path, texts: list[str]) -> None:
        self._model = find(str(folder), "")
        checkpoint = self._model.bart
        self._bart = checkpoint.load()
        self.drawing = read_generation_defaults(checkpoint.path)
        self._text = checkpoint.text_encoder().encode(texts, [str(i) for i in range(len(texts))])
        length = checkpoint.config.image_length
        self._uniforms = np.stack([uniforms(0, str(i), 0, length) for i in range(len(texts))])[:, None]

    def draw(self, way: Way, first: Drawn | None) -> Drawn:
        """Draws all images in one way; `first` is what the first way drew."""
        tokenizer = self._model.tokenizer.load(device="cpu", dtype=way.dtype, batch_size=way.batch, threads=way.threads)
        generator = TokenGenerator(
            self._bart,
            codebook_size=tokenizer.spec.codebook_size,
            prompts_per_batch=way.batch,
            images_per_prompt=1,
            dtype=way.dtype,
            threads=way.threads,
        )
        parts = []
        for start in range(0, len(self._uniforms), way.batch):
            part = slice(start, start + way.batch)
            numbers = self._uniforms[part]
            options = {name: np.full(len(numbers), value) for name, value in self.drawing.items()}
            request = TokenRequest(self._text.input_ids[part], self._text.attention_mask[part], numbers, options)
            parts.append(generator.generate(request)[:, 0])
        codes = np.concatenate(parts)
        pixels = in_batches(tokenizer.decode, codes, way.batch)
        again = pixels if first is None else in_batches(tokenizer.decode, first.codes, way.batch)
        return Drawn(codes, pixels, again)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_images", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny network, a few images")
    parser.add_argument("--model", type=Path, default=MODEL, help="the folder of the trained model")
    parser.add_argument("--images", type=int, default=256)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = write_generator(Path(name), TINY) if args.quick else args.model
        models = Models(folder, prompts(40) if args.quick else _texts(args.images))
        print(f"{machine.describe(torch.device('cpu'))}\n")
        first = models.draw(USUAL, None)
        how = ", ".join(f"{name} {value:g}" for name, value in models.drawing.items())
        print(f"{len(first.codes)} images with {how}, beside those of {USUAL}:\n")
        print("| drawn with | codes changed | images with a changed code | equal codes: pixels changed, at most by |")
        print("|---|---|---|---|")
        for way in OTHERS:
            print(_row("again, as before" if way == USUAL else str(way), first, models.draw(way, first)), flush=True)
    return 0


def _texts(count: int) -> list[str]:
    """The prompts of the demo, repeated."""
    texts = PROMPTS.read_text(encoding="utf-8").splitlines()
    return [texts[i % len(texts)] for i in range(count)]


def _row(what: str, first: Drawn, other: Drawn) -> str:
    codes = other.codes != first.codes
    levels = np.abs(other.repainted.astype(np.int16) - first.pixels)
    return (
        f"| {what} | {codes.mean():.2%} | {codes.any(1).sum()} of {len(codes)} "
        f"| {np.mean(levels > 0):.2%}, {levels.max()} of 255 |"
    )


if __name__ == "__main__":
    sys.exit(main())
