"""Compares the keys of all rows of a job, and says what was found, or why they were not compared."""

from __future__ import annotations

import sys

import pyarrow as pa

from pipelines.command import find_job
from pipelines.scratch import scratch_folder
from pipelines.sizing import PlanRequest
from pipelines.terminal import say
from transforms.batch import SAMPLE, VIEW
from transforms.errors import ShardFailed, UsageError, amount
from transforms.ledger.plan import Plan
from transforms.outputs.repeated_keys import find_repeated_keys

MOST_ROWS = 100_000_000  # that are compared at the end of a run: minutes, in which the workers of a cluster wait
SLOW_ROWS = 1_000_000  # which take seconds


def repeated_keys(output: str, plan: Plan, rows: int, temp_dir: str | None = None) -> str | None:
    """What is to be said of the keys of a job that is done and has written so many `rows`; None if none repeat.

    Only keys of images are compared: those of prompts and tokens may repeat on purpose. Raises none of its faults,
    since the job is done.
    """
    command = find_job(plan.command)
    if plan.schema["kind"] != "images" or command is None:
        return None
    if rows > SLOW_ROWS:
        say(f"Comparing the keys of {amount(rows, 'rows')}", file=sys.stderr)
    number = SAMPLE if command.counts == "images" else VIEW if plan.views else None
    try:
        with scratch_folder(temp_dir) as scratch:
            found = find_repeated_keys(output, range(plan.shards), rows, scratch, number=number)
    except (OSError, pa.ArrowException, ShardFailed, UsageError) as error:
        return f"keys were not compared: {error}"
    return None if found is None else f"{found}; all are kept"


def repeated_keys_at_the_end(request: PlanRequest, plan: Plan, rows: int) -> str | None:
    """As `repeated_keys`, unless that would take long after a run."""
    output, written = request.job.output, request.task.written
    tars = written is not None and written.layout.main.suffix == "tar"
    if plan.schema["kind"] == "images" and (rows > MOST_ROWS or tars):
        reason = "they are in tars" if tars else f"there are more than {MOST_ROWS:,}"
        return f"keys were not compared, since {reason}: `vqbeam verify {output}` compares them"
    return repeated_keys(output, plan, rows, request.job.temp_dir)
