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
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.support import machine, random_generator
from benchmarks.support.emoji import MODEL
from benchmarks.support.shard_run import Clock, Rate, ShardRunner
from models.bart.options import Drawing, read_generation_defaults
from models.find import find
from models.vqgan.config import VQGANConfig
from pipelines.process import reuse_freed_memory
from transforms.inputs.request import InputRequest
from transforms.outputs.layout import ImageOutput
from transforms.work.generate import Generate, GenerateStep, GeneratorSettings
from transforms.work.step import ModelSettings

MINI = random_generator.Sizes(vqgan=VQGANConfig(), width=1024, ffn=2730, heads=16, layers=12)  # as DALL·E mini
MOST_IMAGES = 1 << 13  # of one measurement
LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Setup:
    """`batch` images at once, each of another prompt."""

    name: str
    folder: Path
    batch: int
    dtype: str


class Worker:
    """A worker process of `vqbeam generate` whose models are loaded already, and prompts for it to read."""

    def __init__(self, setup: Setup, device: str, threads: int, folder: Path, texts: Path) -> None:
        name, self.setup = str(setup.folder), setup
        vqgan = ModelSettings(name, str(folder), "torch", device, setup.dtype, setup.batch, threads)
        settings = GeneratorSettings(bart=name, vqgan=vqgan, slots=setup.batch, images_per_slot=1)
        step = GenerateStep(settings)
        self.tokenizer, self.generator = step.tokenizer, step.generator
        self.drawing: Drawing = {"images": 1, "seed": 0, **read_generation_defaults(find(name, "").bart.path)}
        self._text = settings.open_text()
        work = Generate(settings, self.drawing, ImageOutput(), "benchmark", self.tokenizer.spec)
        request = InputRequest(patterns=(str(texts),), kind="prompts")
        self._runner = ShardRunner(work, step, request, folder, threads)
        self.batches = 2  # of each measurement
        self.bare_rates: list[Rate] = []
        self.whole_rates: list[Rate] = []

    @property
    def images(self) -> int:
        """Images of each measurement."""
        return self.batches * self.setup.batch

    def fill(self, seconds: float) -> None:
        """Chooses as many batches as fill `seconds`, after a first call that allocates."""
        self.bare(1)
        rate = self.bare(1).clock / self.setup.batch
        self.batches = max(2, min(MOST_IMAGES // self.setup.batch, round(seconds * rate)))

    def measure(self) -> None:
        """Measures one round: the bare networks, and a shard from its first prompt read to the commit."""
        self.bare_rates.append(self.bare(self.batches))
        self.whole_rates.append(self._runner.run(self.images))

    def bare(self, batches: int) -> Rate:
        """The rate of the networks: from ids and random numbers that are there already to pixels on the host."""
        size = self.setup.batch
        texts = random_generator.prompts(size)
        ready = []
        for number in range(batches):
            keys = [f"{number}-{i}" for i in range(size)]
            ready.append(random_generator.token_request(self._text, texts, keys, self.drawing, self.generator.length))
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
        rounds = 1 if args.quick else LEAST_ROUNDS
        end = time.monotonic() + (0 if args.quick else 60 * args.minutes)
        texts = random_generator.write_prompts(folder / "prompts.txt", MOST_IMAGES)
        workers = [
            Worker(setup, args.device, threads, folder, texts)
            for setup in _setups(folder, args.emoji, args.quick)
            if args.only in f"{setup.name} {setup.dtype}"
        ]
        for worker in workers:
            worker.fill(0.0 if args.quick else args.seconds)
        done = 0
        while done < rounds or time.monotonic() < end:
            for worker in workers:
                worker.measure()
            done += 1
            print(f"round {done} is done", file=sys.stderr, flush=True)
    print(_table(workers))
    return 0


def _setups(folder: Path, emoji: Path, quick: bool) -> list[Setup]:
    if quick:
        tiny = random_generator.write_generator(folder / "tiny", random_generator.TINY)
        return [Setup("tiny", tiny, 4, dtype) for dtype in ("float32", "bfloat16")]
    mini = random_generator.write_generator(folder / "mini", MINI)
    return [Setup("the size of mini", mini, 32, "bfloat16"), Setup("emoji", emoji, 64, "float32")]


def _table(workers: list[Worker]) -> str:
    lines = [
        f"Medians of {len(workers[0].bare_rates)} rounds, shares of those within a round; by work: by processor time.",
        "",
        "| model | dtype | batch | images | bare, images/s | whole, images/s | share | from, to | by work |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for worker in workers:
        setup, pairs = worker.setup, list(zip(worker.whole_rates, worker.bare_rates, strict=True))
        shares = [whole.clock / bare.clock for whole, bare in pairs]
        work = statistics.median(whole.processor / bare.processor for whole, bare in pairs)
        whole, bare = (statistics.median(rate.clock for rate in rates) for rates in zip(*pairs, strict=True))
        lines.append(
            f"| {setup.name} | {setup.dtype} | {setup.batch} | {worker.images} | {bare:.2f} | {whole:.2f} "
            f"| {statistics.median(shares):.3f} | {min(shares):.3f}, {max(shares):.3f} | {work:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
