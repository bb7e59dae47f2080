"""Images/s of `vqbeam generate` inside a worker beside those of its bare models, taken in turns.

python -m benchmarks.generate_pipeline            the size of mini and the emoji model, about eight minutes
python -m benchmarks.generate_pipeline --quick    a tiny network, some seconds: its figures mean nothing
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks.support import machine
from benchmarks.support.emoji import MODEL
from benchmarks.support.random_generator import TINY, Sizes, prompts, write_generator, write_prompts
from benchmarks.support.shard_run import Clock, Rate, ShardRunner
from models.bart.options import SAMPLING, Drawing, read_generation_defaults
from models.bart.request import TokenRequest
from models.find import find
from models.uniforms import uniforms
from models.vqgan.config import VQGANConfig
from pipelines.process import reuse_freed_memory
from transforms.inputs.request import InputRequest
from transforms.outputs.layout import ImageOutput
from transforms.work.generate import Generate, GenerateStep, GeneratorSettings
from transforms.work.step import ModelSettings

MINI = Sizes(vqgan=VQGANConfig(), width=1024, ffn=2730, heads=16, layers=12)  # as DALL·E mini
MOST_IMAGES = 1 << 13  # of one measurement
LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Setup:
    """`batch` images at once, each of another prompt."""

    name: str
    folder: Path
    batch: int
    dtype: str


@dataclass
class Measured:
    """The rates of each round."""

    setup: Setup
    batches: int
    bare: list[Rate] = field(default_factory=list)
    whole: list[Rate] = field(default_factory=list)


class Worker:
    """A worker process of `vqbeam generate` whose models are loaded already, and prompts for it to read."""

    def __init__(self, setup: Setup, device: str, threads: int, folder: Path, texts: Path) -> None:
        vqgan = ModelSettings(
            name=str(setup.folder),
            cache_dir=str(folder),
            backend="torch",
            device=device,
            dtype=setup.dtype,
            batch_size=setup.batch,
            threads=threads,
        )
        settings = GeneratorSettings(bart=str(setup.folder), vqgan=vqgan, slots=setup.batch, images_per_slot=1)
        step = GenerateStep(settings)
        self.tokenizer, self.generator = step.tokenizer, step.generator
        self.drawing: Drawing = {
            "images": 1,
            "seed": 0,
            **read_generation_defaults(find(str(setup.folder), "").bart.path),
        }
        self._text = settings.open_text()
        self._batch = setup.batch
        work = Generate(settings, self.drawing, ImageOutput(), "benchmark", self.tokenizer.spec)
        request = InputRequest(patterns=(str(texts),), kind="prompts")
        self._runner = ShardRunner(work, step, request, folder, threads)

    def whole(self, batches: int) -> Rate:
        """The rate of a shard of `batches` full batches, from its first prompt read to the commit."""
        return self._runner.run(batches * self._batch)

    def bare(self, batches: int) -> Rate:
        """The rate of the networks: from ids and random numbers that are there already to pixels on the host."""
        size, length = self._batch, self.generator.length
        options = {name: np.full(size, self.drawing[name]) for name in SAMPLING}
        ready = []
        for number in range(batches):
            keys = [f"{number}-{i}" for i in range(size)]
            text = self._text.encode(prompts(size), keys)
            numbers = np.stack([uniforms(0, key, 0, length) for key in keys])
            ready.append(TokenRequest(text.input_ids, text.attention_mask, numbers[:, None], options))
        clock = Clock()
        for request in ready:
            self.tokenizer.decode(self.generator.generate(request)[:, 0])
        return clock.rate(batches * size)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generate_pipeline", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny network, one round")
    parser.add_argument("--minutes", type=float, default=3.5, help="of measuring; at least three rounds are made")
    parser.add_argument("--seconds", type=float, default=10.0, help="of one measurement")
    parser.add_argument("--emoji", type=Path, default=MODEL, help="the folder of the trained model")
    parser.add_argument("--only", metavar="WORD", default="", help="models whose name and dtype have this in them")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    reuse_freed_memory()  # as the command does
    threads = torch.get_num_threads()
    print(f"{machine.describe(torch.device(args.device))}\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        setups = [
            setup for setup in _setups(folder, args.emoji, args.quick) if args.only in f"{setup.name} {setup.dtype}"
        ]
        rounds = 1 if args.quick else LEAST_ROUNDS
        seconds = 0.0 if args.quick else args.seconds
        end = time.monotonic() + (0 if args.quick else 60 * args.minutes)
        texts = write_prompts(folder / "prompts.txt", MOST_IMAGES)
        workers = [Worker(setup, args.device, threads, folder, texts) for setup in setups]
        measured = [
            Measured(setup, _batches(worker, setup, seconds)) for worker, setup in zip(workers, setups, strict=True)
        ]
        while len(measured[0].bare) < rounds or time.monotonic() < end:
            for worker, one in zip(workers, measured, strict=True):
                one.bare.append(worker.bare(one.batches))
                one.whole.append(worker.whole(one.batches))
            print(f"round {len(measured[0].bare)} is done", file=sys.stderr, flush=True)
    print(_table(measured))
    return 0


def _setups(folder: Path, emoji: Path, quick: bool) -> list[Setup]:
    if quick:
        tiny = write_generator(folder / "tiny", TINY)
        return [Setup("tiny", tiny, 4, dtype) for dtype in ("float32", "bfloat16")]
    mini = write_generator(folder / "mini", MINI)
    return [Setup("the size of mini", mini, 32, "bfloat16"), Setup("emoji", emoji, 64, "float32")]


def _batches(worker: Worker, setup: Setup, seconds: float) -> int:
    """How many batches fill `seconds`, after a first call that allocates."""
    worker.bare(1)
    rate = worker.bare(1).clock / setup.batch
    return max(2, min(MOST_IMAGES // setup.batch, round(seconds * rate)))


def _table(measured: list[Measured]) -> str:
    lines = [
        f"Medians of {len(measured[0].bare)} rounds, shares of those within a round; by work: by processor time.",
        "",
        "| model | dtype | batch | images | bare, images/s | whole, images/s | share | from, to | by work |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in measured:
        clock = [whole.clock / bare.clock for whole, bare in zip(one.whole, one.bare, strict=True)]
        processor = [whole.processor / bare.processor for whole, bare in zip(one.whole, one.bare, strict=True)]
        bare, whole = (statistics.median(rate.clock for rate in rates) for rates in (one.bare, one.whole))
        lines.append(
            f"| {one.setup.name} | {one.setup.dtype} | {one.setup.batch} | {one.batches * one.setup.batch} "
            f"| {bare:.2f} | {whole:.2f} | {statistics.median(clock):.3f} | {min(clock):.3f}, {max(clock):.3f} "
            f"| {statistics.median(processor):.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
