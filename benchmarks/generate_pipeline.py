"""Pictures/s of `vqbeam generate` inside a worker beside those of its bare models, taken in turns.

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
from typing import NamedTuple

import numpy as np
import torch

from benchmarks import machine
from benchmarks.random_generator import TINY, Sizes, prompts, write_generator, write_prompts
from models.bart.generator import TokenGenerator
from models.bart.options import SAMPLING, Drawing, read_generation_defaults
from models.bart.request import TokenRequest
from models.model_folders import find_bart
from models.uniforms import uniforms
from models.vqgan.codec import ImageCodec
from models.vqgan.config import VQGANConfig
from pipelines.process import reuse_freed_memory
from transforms.engine.job import Job
from transforms.engine.monitor import Monitor
from transforms.engine.resources import Resources
from transforms.engine.worker import run_shard
from transforms.errors import ShardFailed
from transforms.inputs import InputRequest, plan_sources
from transforms.ledger.types import Shard, Slice
from transforms.outputs.layout import ImageOutput
from transforms.work.generate import Generate
from transforms.work.generate_step import GenerateStep, GeneratorSettings
from transforms.work.step import ModelSettings

EMOJI = Path(__file__).parent.parent / "models" / "emoji"
MINI = Sizes(vqgan=VQGANConfig(), width=1024, ffn=2730, heads=16, layers=12)  # as DALL·E mini
MOST_PICTURES = 1 << 13  # of one measurement
LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Setup:
    """`batch` pictures at once, each of another prompt."""

    name: str
    folder: Path
    batch: int
    dtype: str


class Rate(NamedTuple):
    """Pictures/s by the clock, and by the time that the processors worked for them."""

    clock: float
    processor: float


@dataclass
class Measured:
    """A figure a round."""

    setup: Setup
    batches: int
    bare: list[Rate] = field(default_factory=list)
    whole: list[Rate] = field(default_factory=list)


class _Clock:
    """Started as it is made."""

    def __init__(self) -> None:
        self._start, self._worked = time.perf_counter(), time.process_time()

    def rate(self, pictures: int) -> Rate:
        return Rate(pictures / (time.perf_counter() - self._start), pictures / (time.process_time() - self._worked))


class Worker:
    """What a worker process of `vqbeam generate` owns, with models that are loaded already, and prompts to read."""

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
        settings = GeneratorSettings(bart=str(setup.folder), vqgan=vqgan, prompts=setup.batch, pictures=1)
        step = GenerateStep(settings)
        step.setup()
        assert step.codec is not None
        assert step.generator is not None
        self.codec: ImageCodec = step.codec
        self.generator: TokenGenerator = step.generator
        self.drawing: Drawing = {"images": 1, "seed": 0, **read_generation_defaults(find_bart(setup.folder))}
        self._text = settings.open_text()
        self._batch = setup.batch
        self._folder = folder
        plan = plan_sources(
            InputRequest(patterns=(str(texts),), kind="prompts"),
            rows_per_shard=1 << 30,
        )
        (self._piece,) = plan.pieces
        config = self.codec.config
        work = Generate(settings, self.drawing, ImageOutput(), "benchmark", config.codes_per_image, config.n_embed)
        self._job = Job(
            work=work, output="", schema=plan.schema, provenance={}, version="benchmark", decode_threads=threads
        )
        self._resources = Resources([step], decode_threads=threads, max_error_rate=0.0, monitor=Monitor(None))

    def whole(self, batches: int) -> Rate:
        """That of a shard of so many full batches, from its first prompt read to the commit."""
        pictures = batches * self._batch
        shard = Shard(0, (Slice(self._piece.slice.source, 0, pictures),))
        with tempfile.TemporaryDirectory(dir=self._folder) as output:
            job = Job(**{**vars(self._job), "output": output})
            clock = _Clock()
            report = run_shard(shard, job, self._resources)
            rate = clock.rate(pictures)
        if report.status != "done" or report.counts.rows_written != pictures:
            raise ShardFailed(f"the shard of {pictures} pictures was not drawn: {report}")
        return rate

    def bare(self, batches: int) -> Rate:
        """That of the networks: from ids and random numbers that are there already to pixels on the host."""
        size, length = self._batch, self.generator.length
        options = {name: np.full(size, self.drawing[name]) for name in SAMPLING}
        ready = []
        for number in range(batches):
            keys = [f"{number}-{i}" for i in range(size)]
            text = self._text.encode(prompts(size), keys)
            numbers = np.stack([uniforms(0, key, 0, length) for key in keys])
            ready.append(TokenRequest(text.input_ids, text.attention_mask, numbers[:, None], options))
        clock = _Clock()
        for request in ready:
            self.codec.decode(self.generator.generate(request)[:, 0])
        return clock.rate(batches * size)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generate_pipeline", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny network, one round")
    parser.add_argument("--minutes", type=float, default=3.5, help="of measuring; at least three rounds are made")
    parser.add_argument("--seconds", type=float, default=10.0, help="of one measurement")
    parser.add_argument("--emoji", type=Path, default=EMOJI, help="the folder of the trained model")
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
        texts = write_prompts(folder / "prompts.txt", MOST_PICTURES)
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
    """How many fill so many seconds, after a first call that allocates."""
    worker.bare(1)
    rate = worker.bare(1).clock / setup.batch
    return max(2, min(MOST_PICTURES // setup.batch, round(seconds * rate)))


def _table(measured: list[Measured]) -> str:
    lines = [
        f"Medians of {len(measured[0].bare)} rounds, shares of those within a round; by work: by processor time.",
        "",
        "| model | dtype | batch | pictures | bare, pictures/s | whole, pictures/s | share | from, to | by work |",
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
