"""Peak memory of generate, rank and vary for 1x and 10x the images.

python -m benchmarks.memory_generate            about an hour
python -m benchmarks.memory_generate --quick    a few rows: shows that the script works, its figures mean nothing
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.support import machine
from benchmarks.support.peak_memory import Case, measure
from benchmarks.support.photographs import write_tar
from benchmarks.support.random_generator import TINY, write_generator, write_prompts

IN_TABLE = ("--image_layout", "parquet")
IMAGES = 4  # of a prompt; where they are ranked, kept of twice as many


@dataclass(frozen=True)
class Rows:
    """`once` is 1x, in images written: more than are ever in flight at once (a Parquet row group is 4,096 rows), and
    batches enough for the gaps between arrays to have reached what `transforms/engine/resources.py` tolerates."""

    once: int
    shard: int
    sides: tuple[int, int]


FULL = Rows(once=4800, shard=1200, sides=(120, 160))
QUICK = Rows(once=16, shard=8, sides=(40, 60))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory_generate", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rows")
    parser.add_argument("--only", metavar="WORDS", nargs="+", default=[""], help="cases whose name has one in it")
    args = parser.parse_args(argv)
    rows = QUICK if args.quick else FULL
    print(f"{machine.describe(torch.device('cpu'))}\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_generator(folder / "model", TINY)
        cases = [case for case in _cases(folder, rows) if any(words in case.what for words in args.only)]
        within = measure(cases, folder, rows.once)
    return 0 if within or args.quick else 1


def _cases(folder: Path, rows: Rows) -> list[Case]:
    counts = (rows.once, 10 * rows.once)
    texts = [write_prompts(folder / f"{count}.txt", count // IMAGES) for count in counts]
    tars = [write_tar(folder / f"{count}.tar", count, rows.sides) for count in counts]
    whole = ("--rows_per_shard", str(100 * rows.once))  # a prompt counts all its images
    cut = ("--rows_per_shard", str(rows.shard))
    model = ("--model", str(folder / "model"))
    clip = ("--clip", str(folder / "model" / "clip"))
    many = ("--images_per_prompt", str(IMAGES))
    best = ("--images_per_prompt", str(2 * IMAGES), "--keep_best", str(IMAGES))
    return [
        _case("generate, files, one shard", texts, *model, *many, *whole),
        _case(f"generate, files, shards of {rows.shard}", texts, *model, *many, *cut),
        _case("generate, Parquet, one shard", texts, *model, *many, *IN_TABLE, *whole),
        _case("generate, best 4 of 8, files, one shard", texts, *model, *clip, *best, *whole),
        _case("generate, best 4 of 8, Parquet, one shard", texts, *model, *clip, *best, *IN_TABLE, *whole),
        _case("rank, WebDataset, one shard", tars, *clip, *whole),
        _case("vary, latent, files, one shard", tars, *model, *whole),
        _case("vary, codes, Parquet, one shard", tars, *model, "--method", "codes", *IN_TABLE, *whole),
        _case("vary, model, Parquet, one shard", tars, *model, "--method", "model", *IN_TABLE, *whole),
    ]


def _case(what: str, inputs: Sequence[Path], *flags: str) -> Case:
    """The case; `what` begins with the command."""
    command = what.partition(",")[0]
    small, large = ((command, "--input", str(source), *flags) for source in inputs)
    return Case(what, small, large)


if __name__ == "__main__":
    sys.exit(main())
