"""`vqbeam status DIR`: how far a job is, while it runs or later, from its plan and marks, and a look at its tables."""

from __future__ import annotations

import argparse
import json
import time
from datetime import datetime, timezone
from typing import Any

from pipelines.command import Command, find_job
from pipelines.screen import counts_lines, failures, passed_over_lines
from pipelines.terminal import say
from pipelines.written import splits_of
from transforms import storage
from transforms.errors import UsageError, amount, size_text
from transforms.ledger.folder import PLAN, SUCCESS
from transforms.ledger.pace import Pace, pace_of
from transforms.ledger.plan import Plan, copied_plan, load_plan
from transforms.ledger.sums import Totals
from transforms.ledger.totals import pending_shards, total_of
from transforms.ledger.types import shard_name

COMPLETE, FAILED = "complete", "failed"
IN_WORK_SHOWN = 8


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Prints the state, and returns 0."""
    if args.json:
        say(json.dumps(as_json(args)))
    else:
        say(*lines(args)[0])
    return 0


def lines(args: argparse.Namespace) -> tuple[list[str], bool]:
    """The state for people, and whether the job is complete."""
    output, plan, done = open_output(args)
    totals = total_of(output, look=True)
    state = _state(output, plan, done)
    complete = state == COMPLETE
    told = [f"{output}: {plan.command}, {'all shards done, but the job failed' if state == FAILED else state}"]
    told.append(f"  shards     {done:,} of {plan.shards:,} done")
    made_by = find_job(plan.command)
    unit = made_by.unit if made_by else "rows"
    told += counts_lines(made_by.counts if made_by else "rows", totals, plan.views, unit)
    told += [f"  size       {size_text(totals.bytes)}", *(f"  {line}" for line in passed_over_lines(plan))]
    told += _pace_lines(pace_of(output), plan.shards - done, time.time())
    told += [f"  damaged    {message}" for message in (*copy_problems(output), *totals.damaged)]
    failed = [] if complete else failures(output)
    told += [f"  failed in the last run: shard {shard_name(shard)}: {reason}" for shard, reason in failed]
    return told, complete


def as_json(args: argparse.Namespace) -> dict[str, Any]:
    """The state by the names in docs/errors.md."""
    output, plan, done = open_output(args)
    totals, state, pace, now = total_of(output, look=True), _state(output, plan, done), pace_of(output), time.time()
    failed = [] if state == COMPLETE else failures(output)
    return {
        "output": output,
        "command": plan.command,
        "state": state,
        "shards": plan.shards,
        "shards_done": done,
        **counts_as_json(totals),
        "views": plan.views,
        "in_work": list(pace.in_work),
        "rows_in_work": pace.rows_in_work,
        "rows_per_second": pace.rate,
        "seconds_left": pace.seconds_left(plan.shards - done, now) if done < plan.shards else None,
        "last_sign": pace.last_sign or None,
        "damaged": [*copy_problems(output), *totals.damaged],
        "failed": [{"shard": shard, "reason": reason} for shard, reason in failed],
    }


def _state(output: str, plan: Plan, done: int) -> str:
    if storage.exists(storage.join(output, SUCCESS)):
        return COMPLETE
    return FAILED if done == plan.shards else "not complete"


def _pace_lines(pace: Pace, pending: int, now: float) -> list[str]:
    told = []
    if pending and pace.in_work:
        first = ", ".join(map(shard_name, pace.in_work[:IN_WORK_SHOWN]))
        more = ", ..." if len(pace.in_work) > IN_WORK_SHOWN else ""
        rows = "" if pace.rows_in_work is None else f", {amount(pace.rows_in_work, 'rows')} of it done"
        shards = f"{amount(len(pace.in_work), 'shards')} ({first}{more})"
        told.append(f"  in work    {shards}{rows}, or left by a worker that was lost")
    left = pace.seconds_left(pending, now)
    if pending and left is not None:
        told.append(f"  pace       {pace.rate:,.1f} rows/s over the last shards, {duration(left)} left")
    if pace.last_sign:
        at = datetime.fromtimestamp(pace.last_sign, timezone.utc)
        told.append(f"  last sign  {duration(max(0.0, now - pace.last_sign))} ago, {at:%Y-%m-%d %H:%M:%S} UTC")
    return told


def duration(seconds: float) -> str:
    """ "0:02:05"."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


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
