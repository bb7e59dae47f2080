"""`vqbeam verify DIR`: read everything that a job wrote and compare it with its marks."""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from pipelines.command import Command
from transforms import storage
from transforms.errors import UsageError, amount
from transforms.ledger.plan import load_plan
from transforms.ledger.totals import pending_shards
from transforms.ledger.verify import problems
from transforms.outputs.layout import main_folders


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="an output folder of encode, decode, generate, vary or rank")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """0 where all is well, 1 where something is missing, damaged or not done; one line on stdout for each."""
    output = storage.absolute(args.directory)
    plan = load_plan(output)
    if plan is None:
        raise UsageError(f"{output} holds no plan of vqbeam (_vqbeam/shards.parquet)")
    done = plan.shards - len(pending_shards(output, plan.shards))
    count = 0
    with tqdm(total=done, unit=" shards", disable=not sys.stderr.isatty(), leave=False) as bar:
        for problem in problems(output, plan, main_folders(), lambda number: _show(bar, number)):
            count += 1
            print(problem)
    if count:
        print(f"{output}: {amount(count, 'problems')}", file=sys.stderr)
        return 1
    print(f"{output}: {amount(done, 'shards')}, every object as its mark says")
    return 0


def _show(bar: tqdm, number: int) -> None:
    bar.n = number
    bar.refresh()


COMMAND = Command(
    "Check that an output folder is complete and undamaged: counts, sizes and checksums against its marks.",
    add_flags,
    run,
)
