"""Peak memory of encode, decode, generate, rank and vary with 1x and 10x the rows.

python -m benchmarks.memory                        all cases, more than an hour
python -m benchmarks.memory --only encode decode   cases with one of these words in their names
python -m benchmarks.memory --quick                a few rows: shows that the script works, its figures mean nothing
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support import machine
from benchmarks.support.peak_memory import peak_memory
from benchmarks.support.photographs import write_parquet, write_tar
from benchmarks.support.random_generator import TINY, write_generator, write_prompts, write_tokens

ALLOWED = 1.10  # of the peak with one tenth of the rows
IMAGES = 4  # of a prompt; if they are ranked, the best 4 of 8
IN_TABLE = ("--image_layout", "parquet")
IN_TARS = ("--image_layout", "webdataset", "--image_format", "jpeg")


@dataclass(frozen=True)
class Sizes:
    """`rows` is 1x: more than are ever in flight at once (a Parquet row group is 4,096 rows), and batches enough for
    the gaps between arrays to have reached what `transforms/engine/resources.py` tolerates."""

    rows: int
    shard: int
    sides: tuple[int, int]


FULL = Sizes(rows=4800, shard=1200, sides=(180, 240))
QUICK = Sizes(rows=16, shard=8, sides=(40, 60))


@dataclass(frozen=True)
class Case:
    """Two runs that differ only in their input, 1x and 10x; `name` begins with the command."""

    name: str
    inputs: list[Path]
    flags: tuple[str, ...]

    def command(self, source: Path, output: Path) -> list[str]:
        words = [self.name.partition(",")[0], "--device", "cpu", "--batch_size", "64", *self.flags]
        return [*words, "--input", str(source), "--output", str(output)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rows")
    parser.add_argument(
        "--only", metavar="WORDS", nargs="+", default=[""], help="cases with one of these in their name"
    )
    args = parser.parse_args(argv)
    sizes = QUICK if args.quick else FULL
    print(f"{machine.describe()}\n\n| what | {sizes.rows} rows, MiB | {10 * sizes.rows} rows, MiB | ratio |")
    print("|---|---|---|---|", flush=True)
    within = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = [case for case in every_case(folder, sizes) if any(words in case.name for words in args.only)]
        for number, case in enumerate(cases):
            small, large = (
                peak_memory(case.command(source, folder / f"out-{number}-{run}"))
                for run, source in enumerate(case.inputs)
            )
            within &= large / small <= ALLOWED
            print(f"| {case.name} | {small:.0f} | {large:.0f} | {large / small:.3f} |", flush=True)
    print(f"\n{'All' if within else 'NOT all'} ratios are at most {ALLOWED:.2f}.")
    return 0 if within or args.quick else 1


def every_case(folder: Path, sizes: Sizes) -> list[Case]:
    """The cases, after writing their model and inputs."""
    counts = (sizes.rows, 10 * sizes.rows)
    model = ("--model", str(write_generator(folder / "model", TINY)))
    tars = [write_tar(folder / f"{count}.tar", count, sizes.sides) for count in counts]
    one_group = [write_parquet(folder / f"{count}.parquet", count, sizes.sides) for count in counts]
    tokens = [write_tokens(folder / f"tokens-{count}.parquet", count, TINY) for count in counts]
    texts = [write_prompts(folder / f"{count}.txt", count // IMAGES) for count in counts]
    whole = ("--rows_per_shard", str(100 * sizes.rows))  # a prompt counts all its images
    cut = ("--rows_per_shard", str(sizes.shard))
    shards = f"shards of {sizes.shard}"
    clip = ("--clip", "emoji")
    drawn = (*model, "--images_per_prompt", str(IMAGES))
    best = (*model, *clip, "--images_per_prompt", str(2 * IMAGES), "--keep_best", str(IMAGES))
    return [
        Case("encode, WebDataset, one shard", tars, (*model, *whole)),
        Case(f"encode, WebDataset, {shards}", tars, (*model, *cut)),
        Case("encode, Parquet, one row group, one shard", one_group, (*model, *whole)),
        Case("decode, WebDataset, one shard", tokens, (*model, *IN_TARS, *whole)),
        Case(f"decode, WebDataset, {shards}", tokens, (*model, *IN_TARS, *cut)),
        Case("generate, files, one shard", texts, (*drawn, *whole)),
        Case(f"generate, files, {shards}", texts, (*drawn, *cut)),
        Case("generate, Parquet, one shard", texts, (*drawn, *IN_TABLE, *whole)),
        Case("generate, best 4 of 8, files, one shard", texts, (*best, *whole)),
        Case("generate, best 4 of 8, Parquet, one shard", texts, (*best, *IN_TABLE, *whole)),
        Case("rank, WebDataset, one shard", tars, (*clip, *whole)),
        Case("vary, latent, files, one shard", tars, (*model, *whole)),
        Case("vary, codes, Parquet, one shard", tars, (*model, "--method", "codes", *IN_TABLE, *whole)),
        Case("vary, model, Parquet, one shard", tars, (*model, "--method", "model", *IN_TABLE, *whole)),
    ]


if __name__ == "__main__":
    sys.exit(main())
