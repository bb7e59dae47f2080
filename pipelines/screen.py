"""Shows a run on this machine while it goes on: a bar on a terminal, plain lines elsewhere.

A thread reads what the workers wrote into the scratch folder (`transforms.engine.monitor`), whatever they are.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

from tqdm import tqdm

from transforms.engine.monitor import read_totals
from transforms.errors import amount

BAR_SECONDS = 0.5  # between two looks on a terminal
LINE_SECONDS = 15.0  # between two lines elsewhere
BAR_FORMAT = "{percentage:3.0f}%|{bar}| {desc}"


@dataclass(frozen=True)
class Expected:
    """What is known before the work begins: `shards` of the whole plan, `shards_before` that earlier runs did,
    and the rows of the rest, None where they have not been counted. `unit` is what a row is called."""

    shards: int
    shards_before: int = 0
    rows: int | None = None
    unit: str = "images"


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
