"""`vqbeam status DIR`: how far a job is, while it runs or later, from its plan and marks alone."""

from __future__ import annotations

import argparse

from pipelines.command import Command
from pipelines.screen import counts_lines, failures, time_line
from transforms import storage
from transforms.errors import UsageError, size_text
from transforms.ledger.folder import SUCCESS
from transforms.ledger.plan import load_plan
from transforms.ledger.totals import pending_shards, total_of


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="an output folder of encode, decode, generate, vary or rank")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Prints the state, and returns 0."""
    output = storage.absolute(args.directory)
    plan = load_plan(output)
    if plan is None:
        raise UsageError(f"{output} holds no plan of vqbeam (_vqbeam/shards.parquet)")
    totals = total_of(output)
    done = plan.shards - len(pending_shards(output, plan.shards))
    complete = storage.exists(storage.join(output, SUCCESS))
    state = "complete" if complete else "all shards done, but the job failed" if done == plan.shards else "not complete"
    print(f"{output}: {plan.command}, {state}")
    print(f"  shards     {done:,} of {plan.shards:,} done")
    for line in counts_lines(plan.command, totals):
        print(line)
    if totals.seconds:
        print(f"  time       {time_line(totals)}")
    if totals.codes_used:
        print(f"  codes      {totals.codes_used:,} different ones in use")
    print(f"  size       {size_text(totals.bytes)}")
    for shard, reason in [] if complete else failures(output):
        print(f"  failed in the last run: shard {shard:05d}: {reason}")
    return 0


COMMAND = Command(
    "Show how far the job in an output folder has come. Reads plan and marks only; safe while it runs.", add_flags, run
)
