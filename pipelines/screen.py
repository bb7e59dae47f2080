"""Sums a job up at the end."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from itertools import islice
from typing import Any

from pipelines.command import JobCommand
from pipelines.parsing import in_flags, parser_of
from pipelines.terminal import say
from transforms import storage
from transforms.errors import ShardFailed, StorageFailed, amount, size_text
from transforms.inputs.passed_over import passed_over_text
from transforms.ledger.folder import LAST_RUN, PLAN
from transforms.ledger.plan import Plan
from transforms.ledger.rejected import rejected_rows
from transforms.ledger.sums import Totals
from transforms.ledger.totals import Outcome, most_common
from transforms.ledger.types import STAGES, shard_name

REASONS_SHOWN = 5
REJECTED_SHOWN = 5
MAX_TEXT = 200  # characters of a key, a URI or a message on the screen


def passed_over_lines(plan: Plan) -> list[str]:
    """The line that says which files of the input are not read; none if all are."""
    text = passed_over_text(plan.passed_over)
    return [f"passed over: {text}"] if text else []


def print_summary(
    command: JobCommand,
    output: str,
    plan: Plan,
    outcome: Outcome,
    look: str | None,
    keys: str | None,
    *,
    already: bool,
) -> None:
    """What is in the folder now, what went wrong, where the time went, and how to look at it.

    `look`: what to look at; None if the folder is a temporary one. `keys`: what is to be said of keys that repeat.
    `already`: an earlier run did it all.
    """
    shards = plan.shards
    totals, undone, parser = outcome.totals, outcome.undone, parser_of(command.name, command)
    every = amount(shards, "shards")
    size = f"{size_text(totals.bytes)} in {output}" if look else f"{size_text(totals.bytes)}, removed: no --output"
    lines = counts_lines(command.counts, totals, plan.views, command.unit, speed=_speed(output, plan, command.unit))
    lines.append(f"  size       {size}")
    lines += [f"  notice     {keys}"] if keys else []
    names = f" (names: {storage.join(output, PLAN)})" if look else ""
    lines += [f"  {line}{names}" for line in passed_over_lines(plan)]
    if undone:
        failed = last_run(output)
        advice = "; see the reasons" if failed.get("advised") else "; run the same command again"
        lines.append(f"  FAILED     {len(undone):,} of {every}{advice}")
        lines += [f"    shard {shard_name(shard)}: {in_flags(reason, parser)}" for shard, reason in failures(output)]
    if totals.rows_rejected and look:
        lines += _first_rejected(output, totals)
    if outcome.well and look:
        lines.append(f"  look at    {look}")
    if outcome.failing:  # although every shard is done
        headline = f"Failed: {in_flags(outcome.failing, parser)}"
    elif undone:
        headline = f"Failed: {shards - len(undone):,} of {every} done"
    else:
        headline = f"{'Done already' if already else 'Done'}: {shards:,} of {every}"
    say(headline, *lines)


def _first_rejected(output: str, totals: Totals) -> list[str]:
    """The first rejected rows, and where all of them are."""
    every = totals.rows_rejected
    try:
        rows = islice(rejected_rows(output, totals.shards_with_rejected), REJECTED_SHOWN)
        lines = [f"    {rejected_line(row)}" for row in rows]
    except ShardFailed as error:  # the store's, or a damaged list: what else there is to say is said
        lines = [f"    {error}"]
    first = f"the first {REJECTED_SHOWN}; " if every > REJECTED_SHOWN else ""
    return [f"  rejected   {first}`vqbeam errors {shlex.quote(output)}` shows {amount(every, 'rows')}", *lines]


def rejected_line(row: Mapping[str, Any]) -> str:
    """A rejected row for people."""
    texts = (" ".join(str(row[name]).split()) for name in ("error", "key", "uri", "message"))
    code, key, uri, message = (text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..." for text in texts)
    return f"{code}  {key}  {uri}: {message}"


def counts_lines(counted: str, totals: Totals, views: int = 0, unit: str = "images", *, speed: str = "") -> list[str]:
    """What has been counted in a folder, "rows" or "images", and where the time went: stages overlap, so they add up to
    more than the time that passed. With `views` rows of each image, images are told as well. `speed` is of workers."""
    lines = [
        f"  {counted:<10} {totals.rows_read:,} read = {totals.rows_written:,} written + {totals.rows_rejected:,} "
        f"rejected + {totals.rows_filtered:,} filtered"
    ]
    if views:
        read, written, rejected, filtered = (
            number // views
            for number in (totals.rows_read, totals.rows_written, totals.rows_rejected, totals.rows_filtered)
        )
        lines.append(
            f"  images     {read:,} read = {written:,} written + {rejected:,} rejected + {filtered:,} filtered, "
            f"{amount(views, 'rows')} each"
        )
    for label, counts in (("rejected", totals.errors), ("filtered", totals.filters)):
        if counts:
            lines.append(f"  {label:<10} " + ", ".join(f"{count:,} {name}" for name, count in most_common(counts)))
    lines += [f"  notice     {name} ({amount(count, 'times')})" for name, count in most_common(totals.notices)]
    if totals.missing_captions:
        lines.append(f"  captions   {amount(totals.missing_captions, unit)} without")
    if speed:
        lines.append(f"  speed      {speed}")
    if totals.seconds:
        stages = ", ".join(f"{stage} {totals.timings.get(stage, 0.0):,.1f} s" for stage in STAGES)
        lines.append(f"  time       {totals.seconds:,.1f} s in shards; of that, overlapping: {stages}")
    if totals.codes_used:
        lines.append(f"  codes      {totals.codes_used:,} different ones in use")
    return lines


def failures(output: str) -> list[tuple[int, str]]:
    """The first reasons why shards failed in the last run."""
    return [(shard, reason) for shard, reason in last_run(output).get("failed", [])[:REASONS_SHOWN]]


def _speed(output: str, plan: Plan, unit: str) -> str:
    """ "105.2 images/s a worker, 3 workers", by the account of the last run; empty if that does not say it."""
    told = last_run(output).get("workers", {})
    if not told.get("seconds") or not told.get("rows_written"):
        return ""
    written = told["rows_written"] / (plan.views or 1)
    several = f", {amount(told['number'], 'workers')}" if told["number"] > 1 else ""
    return f"{written / told['seconds']:,.1f} {unit}/s a worker{several}"


def last_run(output: str) -> dict[str, Any]:
    """The account of the last run; empty if there is none that can be read."""
    try:
        found = json.loads(storage.read_bytes(storage.join(output, LAST_RUN)))
    except (FileNotFoundError, StorageFailed, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
