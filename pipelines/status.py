"""`vqbeam status DIR`: how far a job is, while it runs or later, from its plan and marks, and a look at its tables."""

from __future__ import annotations

import argparse
import json
from typing import Any

from pipelines.command import Command, find_job
from pipelines.screen import counts_lines, failures, passed_over_lines
from pipelines.terminal import say
from pipelines.written import splits_of
from transforms import storage
from transforms.errors import UsageError, size_text
from transforms.ledger.folder import PLAN, SUCCESS
from transforms.ledger.plan import Plan, copied_plan, load_plan
from transforms.ledger.sums import Totals
from transforms.ledger.totals import pending_shards, total_of
from transforms.ledger.types import shard_name


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Prints the state, and returns 0."""
    output, plan, done = open_output(args)
    totals = total_of(output, look=True)
    complete = storage.exists(storage.join(output, SUCCESS))
    state = "complete" if complete else "all shards done, but the job failed" if done == plan.shards else "not complete"
    problems = [*copy_problems(output), *totals.damaged]
    failed = [] if complete else failures(output)
    if args.json:
        told: dict[str, Any] = {
            "output": output,
            "command": plan.command,
            "state": "failed" if "failed" in state else state,
        }
        told |= {"shards": plan.shards, "shards_done": done, **counts_as_json(totals), "views": plan.views}
        told |= {"damaged": problems, "failed": [{"shard": shard, "reason": reason} for shard, reason in failed]}
        say(json.dumps(told))
        return 0
    say(f"{output}: {plan.command}, {state}")
    say(f"  shards     {done:,} of {plan.shards:,} done")
    made_by = find_job(plan.command)
    unit = made_by.unit if made_by else "rows"
    say(*counts_lines(made_by.counts if made_by else "rows", totals, plan.views, unit))
    say(f"  size       {size_text(totals.bytes)}", *(f"  {line}" for line in passed_over_lines(plan)))
    for message in problems:
        say(f"  damaged    {message}")
    for shard, reason in failed:
        say(f"  failed in the last run: shard {shard_name(shard)}: {reason}")
    return 0


def counts_as_json(totals: Totals) -> dict[str, Any]:
    """What has been counted in a folder, by the names in docs/errors.md."""
    counts = ("rows_read", "rows_written", "rows_rejected", "rows_filtered", "errors", "filters", "notices")
    more = ("missing_captions", "bytes", "seconds", "timings", "codes_used")
    return {name: getattr(totals, name) for name in (*counts, *more)}


def copy_problems(output: str) -> list[str]:
    """A line if the plan's copy for people is damaged."""
    if copied_plan(output):
        return []
    return [f"{storage.join(output, PLAN)} is missing or damaged: the next run of the job writes it anew"]


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directory", metavar="DIR", help="an output folder of encode, decode, generate, vary, rank, evaluate or export"
    )


def add_status_flags(parser: argparse.ArgumentParser) -> None:
    add_flags(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object; docs/errors.md has its fields")


def open_output(args: argparse.Namespace) -> tuple[str, Plan, int]:
    """The folder, the plan in it and how many of its shards are done. Raises `UsageError` if it holds no plan."""
    output = storage.absolute(args.directory)
    plan = load_plan(output)
    if plan is None:
        splits = splits_of(output)
        if splits:
            raise UsageError(f"{output} holds an export in splits, each a job by itself: name {' or '.join(splits)}")
        raise UsageError(f"{output} holds no plan of vqbeam (_vqbeam/shards.parquet)")
    return output, plan, plan.shards - len(pending_shards(output, plan.shards))


COMMAND = Command(
    "Show how far the job in an output folder has come. Reads plan, marks and the ends of tables; safe while it runs.",
    add_status_flags,
    run,
    examples=(
        "vqbeam status tokens",
        "vqbeam status gs://my-bucket/tokens",
    ),
)
