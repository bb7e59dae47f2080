"""How many codes and images of `vqbeam generate` change with batch size, threads and dtype on a CPU.

python -m benchmarks.same_images            the emoji model at its default sampling, about two minutes
python -m benchmarks.same_images --quick    a few images of a tiny network, some seconds
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from benchmarks.support import machine
from benchmarks.support.emoji import MODEL, PROMPTS
from benchmarks.support.random_generator import TINY, prompts, token_request, write_generator
from models.bart.generator import TokenGenerator
from models.bart.options import read_generation_defaults
from models.find import find
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
    repainted: np.ndarray  # the same, from the codes of the first way


class Models:
    """The models of a folder, prompts, and the options that decide their images."""

    def __init__(self, folder: Path, texts: list[str]) -> None:
        self._model = find(str(folder), "")
        checkpoint = self._model.bart
        self._bart = checkpoint.load()
        self.drawing = read_generation_defaults(checkpoint.path)
        self._text = checkpoint.text_encoder()
        self._texts = texts

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
        for start in range(0, len(self._texts), way.batch):
            texts = self._texts[start : start + way.batch]
            keys = [str(start + number) for number in range(len(texts))]
            request = token_request(self._text, texts, keys, self.drawing, generator.length)
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
        usual = cycle(PROMPTS.read_text(encoding="utf-8").splitlines())
        models = Models(folder, prompts(40) if args.quick else list(islice(usual, args.images)))
        print(f"{machine.describe()}\n")
        first = models.draw(USUAL, None)
        how = ", ".join(f"{name} {value:g}" for name, value in models.drawing.items())
        print(f"{len(first.codes)} images with {how}, beside those of {USUAL}:\n")
        print("| drawn with | codes changed | images with a changed code | equal codes: pixels changed, at most by |")
        print("|---|---|---|---|")
        for way in OTHERS:
            print(_row("again, as before" if way == USUAL else str(way), first, models.draw(way, first)), flush=True)
    return 0


def _row(what: str, first: Drawn, other: Drawn) -> str:
    codes = other.codes != first.codes
    levels = np.abs(other.repainted.astype(np.int16) - first.pixels)
    return (
        f"| {what} | {codes.mean():.2%} | {codes.any(1).sum()} of {len(codes)} "
        f"| {np.mean(levels > 0):.2%}, {levels.max()} of 255 |"
    )


if __name__ == "__main__":
    sys.exit(main())
