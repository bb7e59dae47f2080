"""The short account at the end of a run, and what `vqbeam status` says in between."""

from __future__ import annotations

import json
import sys

from transforms import storage
from transforms.errors import amount, size_text
from transforms.ledger.folder import OutputFolder
from transforms.ledger.plan import Plan
from transforms.ledger.totals import Outcome, Totals, most_common
from transforms.ledger.types import STAGES

REASONS_SHOWN = 5
PICTURE_COUNTERS = ("generate", "vary")  # commands that make several pictures of a row, and count those


def print_summary(output: str, plan: Plan, outcome: Outcome, unit: str, look: str, *, already: bool = False) -> None:
    """What is in the folder now, what went wrong, where the time went, and how to look at it.

    `already`: an earlier run did it all.
    """
    totals, undone, shards = outcome.totals, outcome.undone, amount(plan.shards, "shards")
    lines = counts_lines(plan.command, totals, unit)
    if totals.seconds:
        rate = totals.rows_written / totals.seconds
        lines.append(f"  speed      {rate:,.1f} {unit}/s a worker")
        lines.append(f"  time       {time_line(totals)}")
    if totals.codes_used:
        lines.append(f"  codes      {totals.codes_used:,} different ones in use")
    lines.append(f"  size       {size_text(totals.bytes)} in {output}")
    if undone:
        lines.append(f"  FAILED     {len(undone):,} of {shards}; run the same command again")
        lines += [f"    shard {shard:05d}: {text}" for shard, text in failures(output)]
    if outcome.failing:
        lines.append(f"  FAILED     {outcome.failing}")
    if totals.rows_rejected:
        lines.append(f"  look into  {storage.join(output, '_vqbeam/errors')}: one row for each that was rejected")
    if outcome.well:
        lines.append(f"  look at    {look}")
    headline = "Failed" if not outcome.well else "Done already" if already else "Done"
    done = "" if outcome.well else " done"  # "Failed: 1 of 1 shard" would say that it was the shard that failed
    print(f"{headline}: {plan.shards - len(undone):,} of {shards}{done}", *lines, sep="\n", file=sys.stdout)


def counts_lines(command: str, totals: Totals, unit: str) -> list[str]:
    counted = "pictures" if command in PICTURE_COUNTERS else "rows"
    lines = [f"  {counted:<10} {totals.rows_read:,} read = {totals.rows_written:,} written"]
    lines[0] += f" + {totals.rows_rejected:,} rejected + {totals.rows_filtered:,} filtered"
    for label, counts in (("rejected", totals.errors), ("filtered", totals.filters)):
        if counts:
            lines.append(f"  {label:<10} " + ", ".join(f"{count:,} {name}" for name, count in most_common(counts)))
    lines += [f"  notice     {name} ({amount(count, 'times')})" for name, count in most_common(totals.notices)]
    if totals.missing_captions:
        lines.append(f"  captions   {amount(totals.missing_captions, unit)} without")
    return lines


def time_line(totals: Totals) -> str:
    """Seconds of each stage; they overlap, so they add up to more than the time that passed."""
    stages = ", ".join(f"{stage} {totals.timings.get(stage, 0.0):,.1f} s" for stage in STAGES)
    return f"{totals.seconds:,.1f} s in shards; of that, overlapping: {stages}"


def failures(output: str) -> list[tuple[int, str]]:
    """The first reasons why shards failed in the last run."""
    try:
        last = json.loads(storage.read_bytes(OutputFolder(output).last_run))
    except FileNotFoundError:
        return []
    return [(shard, reason) for shard, reason in last["failed"][:REASONS_SHOWN]]
