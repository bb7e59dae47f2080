"""Shows a run on this machine while it works, as a bar on a terminal or as plain lines, and sums it up at the end.

A thread reads what the workers wrote into the scratch folder (`transforms.engine.monitor`).
"""

from __future__ import annotations

import json
import shlex
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TextIO

from tqdm import tqdm

from pipelines.command import JobCommand
from pipelines.parsing import in_flags, parser_of
from pipelines.stages import SILENT_SECONDS
from pipelines.terminal import say
from transforms import storage
from transforms.engine.monitor import read_totals
from transforms.errors import ShardFailed, StorageFailed, amount, size_text
from transforms.inputs.passed_over import passed_over_text
from transforms.ledger.folder import LAST_RUN, PLAN
from transforms.ledger.plan import Plan
from transforms.ledger.rejected import rejected_rows
from transforms.ledger.sums import Totals
from transforms.ledger.totals import Outcome, most_common
from transforms.ledger.types import STAGES, shard_name

BAR_SECONDS = 0.5  # between two looks on a terminal
LINE_SECONDS = 15.0  # between two lines elsewhere
REASONS_SHOWN = 5
REJECTED_SHOWN = 5
MAX_TEXT = 200  # characters of a key, a URI or a message on the screen
BAR_FORMAT = "{percentage:3.0f}%|{bar}| {desc}"


@dataclass(frozen=True)
class Expected:
    """What is known before the work begins: `shards` of the whole plan, `shards_before` that earlier runs did,
    and the rows of the rest, None if they have not been counted. `unit` is what they are called."""

    shards: int
    shards_before: int = 0
    rows: int | None = None
    unit: str = "images"


@contextmanager
def progress(scratch: str, expected: Expected, stream: TextIO | None = None) -> Iterator[None]:
    """While this context is open, shows the run whose workers write into `scratch`."""
    closing = threading.Event()
    arguments = (scratch, expected, stream or sys.stderr, closing)
    thread = threading.Thread(target=_show, args=arguments, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join()


def _show(scratch: str, expected: Expected, stream: TextIO, closing: threading.Event) -> None:
    """Draws over one line on a terminal, else prints a line now and then."""
    terminal, last = stream.isatty(), False
    pause = BAR_SECONDS if terminal else 0.0
    now, began = time.monotonic(), None  # when the first row was read: loading a model does not count
    with tqdm(total=1.0, bar_format=BAR_FORMAT, file=stream, dynamic_ncols=True, disable=not terminal) as bar:
        while not last:
            last = closing.wait(pause)
            totals = read_totals(scratch)
            if not terminal:
                pause = LINE_SECONDS if _under_way(totals) else min(LINE_SECONDS, SILENT_SECONDS)
            before, now = now, time.monotonic()
            if began is None and totals["rows_read"]:
                began = before
            line = describe(totals, expected, 0 if began is None else now - began)
            if terminal:
                bar.set_description_str(line, refresh=False)
                bar.n = share_done(totals, expected, whole=True)
                bar.refresh()
            else:
                say(line, file=stream, flush=True)


def _under_way(totals: Mapping[str, float]) -> bool:
    """Whether a batch has gone through, or a shard."""
    ended = ("rows_written", "rows_rejected", "rows_filtered", "shards_done", "shards_failed")
    return any(totals[counter] for counter in ended)


def _beginning(totals: Mapping[str, float]) -> str:
    """What the workers do before that."""
    if not totals.get("shards_in_flight"):
        return "starting"
    if not totals["models_loaded"]:
        return "loading the model"
    return "the first batch is at work" if totals["rows_read"] else "reading"


def share_done(totals: Mapping[str, float], expected: Expected, *, whole: bool) -> float:
    """How much is done, 0 to 1: of the whole plan, or of what this run had to do.

    By rows if their number is known, since shards only count when they end.
    """
    shards_to_do = max(expected.shards - expected.shards_before, 0)
    if not shards_to_do:
        return 1.0
    share = (totals["shards_done"] + totals["shards_failed"]) / shards_to_do
    if expected.rows:
        share = max(share, totals["rows_read"] / expected.rows)
    share = min(share, 1.0)
    return (expected.shards_before + share * shards_to_do) / expected.shards if whole else share


def describe(totals: Mapping[str, float], expected: Expected, seconds: float) -> str:
    """One line: "12/40 shards, 3,120 images, 412 images/s, 3 rejected, 2:10 left".

    `seconds` is how long rows have been read for; 0 means that none has been yet.
    """
    shards = f"{expected.shards_before + int(totals['shards_done']):,}/{expected.shards:,} shards"
    if not _under_way(totals):
        return f"{shards}, {_beginning(totals)}"
    parts = [shards, amount(int(totals["rows_written"]), expected.unit)]
    if seconds > 0:
        parts.append(f"{_short(totals['rows_written'] / seconds)} {expected.unit}/s")
    parts += [
        f"{int(totals[counter]):,} {word}"
        for counter, word in (("rows_rejected", "rejected"), ("rows_filtered", "filtered"))
        if totals[counter]
    ]
    if totals["shards_failed"]:
        parts.append(f"{amount(int(totals['shards_failed']), 'shards')} FAILED")
    share = share_done(totals, expected, whole=False)
    if 0 < share < 1 and seconds > 0:
        parts.append(f"{_clock_time(seconds * (1 - share) / share)} left")
    return ", ".join(parts)


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


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
