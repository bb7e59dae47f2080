"""`vqbeam verify DIR`: read everything that a job wrote and compare it with its marks."""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from pipelines.command import Command
from pipelines.status import add_flags, open_output
from transforms.errors import amount
from transforms.ledger.verify import problems
from transforms.outputs.layout import main_folders


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Returns 0 if all is well, 1 if something is missing, damaged or not done; one line on stdout for each."""
    output, plan, done = open_output(args)
    count = 0
    with tqdm(total=done, unit=" shards", disable=not sys.stderr.isatty(), leave=False) as bar:
        for problem in problems(output, plan, main_folders(), lambda number: bar.update(1)):
            count += 1
            print(problem)
    if count:
        print(f"{output}: {amount(count, 'problems')}", file=sys.stderr)
        return 1
    print(f"{output}: {amount(done, 'shards')}, every object as its mark says")
    return 0


COMMAND = Command(
    "Check that an output folder is complete and undamaged: counts, sizes and checksums against its marks.",
    add_flags,
    run,
)
