"""Shows a run on this machine while it goes on, as a bar on a terminal or as plain lines, and sums it up at the end.

A thread reads what the workers wrote into the scratch folder (`transforms.engine.monitor`).
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

from tqdm import tqdm

from pipelines import command
from pipelines.parsing import in_flags, parser_of
from transforms import storage
from transforms.engine.monitor import read_totals
from transforms.errors import amount, size_text
from transforms.ledger.folder import LAST_RUN
from transforms.ledger.plan import Plan
from transforms.ledger.totals import Outcome, Totals, most_common
from transforms.ledger.types import STAGES

BAR_SECONDS = 0.5  # between two looks on a terminal
LINE_SECONDS = 15.0  # between two lines elsewhere
REASONS_SHOWN = 5
BAR_FORMAT = "{percentage:3.0f}%|{bar}| {desc}"


@dataclass(frozen=True)
class Expected:
    """What is known before the work begins: `shards` of the whole plan, `shards_before` that earlier runs did,
    and the rows of the rest, None where they have not been counted."""

    shards: int
    shards_before: int = 0
    rows: int | None = None


class Progress:
    """While this context is open, shows the run whose workers write into `scratch`."""

    def __init__(self, scratch: str, expected: Expected, stream: TextIO | None = None) -> None:
        self._scratch = scratch
        self._expected = expected
        self._stream = stream or sys.stderr
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()

    def _show(self) -> None:
        if self._stream.isatty():
            self._show_bar()
        else:
            self._show_lines()

    def _show_bar(self) -> None:
        clock = Clock()
        with tqdm(total=1.0, bar_format=BAR_FORMAT, file=self._stream, dynamic_ncols=True) as bar:
            while True:
                last = self._closing.wait(BAR_SECONDS)
                totals = read_totals(self._scratch)
                bar.set_description_str(describe(totals, self._expected, clock.seconds(totals)), refresh=False)
                bar.n = share_done(totals, self._expected, whole=True)
                bar.refresh()
                if last:
                    return

    def _show_lines(self) -> None:
        clock = Clock()
        while not self._closing.wait(LINE_SECONDS):
            totals = read_totals(self._scratch)
            print(describe(totals, self._expected, clock.seconds(totals)), file=self._stream, flush=True)
        totals = read_totals(self._scratch)
        print(describe(totals, self._expected, clock.seconds(totals)), file=self._stream, flush=True)


class Clock:
    """Seconds since the first row was read: loading a model is no part of images/s."""

    def __init__(self) -> None:
        self._looked_at = time.monotonic()
        self._began_at: float | None = None

    def seconds(self, totals: Mapping[str, float]) -> float:
        """Seconds at this look, given what has been counted until now; 0 while nothing has been read."""
        before, self._looked_at = self._looked_at, time.monotonic()
        if self._began_at is None and totals["rows_read"]:
            self._began_at = before
        return time.monotonic() - self._began_at if self._began_at is not None else 0.0


def share_done(totals: Mapping[str, float], expected: Expected, *, whole: bool) -> float:
    """How much is done, 0 to 1: of the whole plan, or of what this run had to do.

    By rows where they are known, since shards only count when they end.
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
    if not any(totals[counter] for counter in ("rows_read", "shards_done", "shards_failed")):
        return f"{shards}, starting"
    parts = [shards, amount(int(totals["rows_written"]), "images")]
    if seconds > 0:
        parts.append(f"{_short(totals['rows_written'] / seconds)} images/s")
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


def print_summary(output: str, plan: Plan, outcome: Outcome, look: str, *, already: bool = False) -> None:
    """What is in the folder now, what went wrong, where the time went, and how to look at it.

    `already`: an earlier run did it all.
    """
    totals, undone, shards = outcome.totals, outcome.undone, amount(plan.shards, "shards")
    lines = counts_lines(plan.command, totals)
    if totals.seconds:
        rate = totals.rows_written / totals.seconds
        lines.append(f"  speed      {rate:,.1f} images/s a worker")
        lines.append(f"  time       {time_line(totals)}")
    if totals.codes_used:
        lines.append(f"  codes      {totals.codes_used:,} different ones in use")
    lines.append(f"  size       {size_text(totals.bytes)} in {output}")
    if undone:
        lines.append(f"  FAILED     {len(undone):,} of {shards}; run the same command again")
        lines += [f"    shard {shard:05d}: {_in_flags(text, plan)}" for shard, text in failures(output)]
    if outcome.failing:
        lines.append(f"  FAILED     {_in_flags(outcome.failing, plan)}")
    if totals.rows_rejected:
        lines.append(f"  look into  {storage.join(output, '_vqbeam/errors')}: one row for each that was rejected")
    if outcome.well:
        lines.append(f"  look at    {look}")
    headline = "Failed" if not outcome.well else "Done already" if already else "Done"
    done = "" if outcome.well else " done"  # "Failed: 1 of 1 shard" would say that it was the shard that failed
    print(f"{headline}: {plan.shards - len(undone):,} of {shards}{done}", *lines, sep="\n", file=sys.stdout)


def _in_flags(reason: str, plan: Plan) -> str:
    """A reason of the library in the words of the command that is to be run again."""
    made_by = command.find_job(plan.command)
    return in_flags(reason, parser_of(plan.command, made_by)) if made_by else reason


def counts_lines(name: str, totals: Totals) -> list[str]:
    """What has been counted in the folder of the command `name`."""
    made_by = command.find_job(name)
    counted = made_by.counts if made_by else "rows"
    lines = [f"  {counted:<10} {totals.rows_read:,} read = {totals.rows_written:,} written"]
    lines[0] += f" + {totals.rows_rejected:,} rejected + {totals.rows_filtered:,} filtered"
    for label, counts in (("rejected", totals.errors), ("filtered", totals.filters)):
        if counts:
            lines.append(f"  {label:<10} " + ", ".join(f"{count:,} {name}" for name, count in most_common(counts)))
    lines += [f"  notice     {name} ({amount(count, 'times')})" for name, count in most_common(totals.notices)]
    if totals.missing_captions:
        lines.append(f"  captions   {amount(totals.missing_captions, 'images')} without")
    return lines


def time_line(totals: Totals) -> str:
    """Seconds of each stage; they overlap, so they add up to more than the time that passed."""
    stages = ", ".join(f"{stage} {totals.timings.get(stage, 0.0):,.1f} s" for stage in STAGES)
    return f"{totals.seconds:,.1f} s in shards; of that, overlapping: {stages}"


def failures(output: str) -> list[tuple[int, str]]:
    """The first reasons why shards failed in the last run."""
    try:
        last = json.loads(storage.read_bytes(storage.join(output, LAST_RUN)))
    except FileNotFoundError:
        return []
    return [(shard, reason) for shard, reason in last["failed"][:REASONS_SHOWN]]
