"""Shows a run on this machine while it works, as a bar on a terminal or as plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

from tqdm import tqdm

from pipelines.sample import Expected, Sample, Sampler
from pipelines.sample_text import line
from pipelines.sinks import Sink
from pipelines.terminal import say, shown
from pipelines.ticking import ticking

TICK_SECONDS = 0.5  # between two samples
LINE_SECONDS = 15.0  # between two lines where there is no terminal
FIRST_SECONDS = 1.5  # the same while something is waited for; twice as long each time
COLUMNS = 80  # of a terminal that does not say it
LEAST_METER = 15  # columns; with fewer there is none
METER_FORMAT = "{percentage:3.0f}%|{bar}|"


@contextmanager
def progress(
    scratch: str,
    expected: Expected,
    stream: TextIO | None = None,
    *,
    sinks: Sequence[Sink] = (),
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """While this context is open, shows the run whose workers write into `scratch`, and has `sinks` take it, too."""
    stream = stream or sys.stderr
    screen: Sink = Bar(stream) if stream.isatty() else PlainLines(stream)
    sampler = Sampler(scratch, expected, clock)

    def tick(last: bool) -> float:
        sample = sampler.look()
        for sink in (screen, *sinks):
            sink.take(sample, last=last)
        return TICK_SECONDS

    with ticking(tick):
        yield


class Bar:
    """Draws over one line of a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._draw = tqdm.status_printer(stream)
        self._ascii = not (stream.encoding or "").lower().startswith("utf")

    def take(self, sample: Sample, *, last: bool) -> None:
        room = columns(self._stream) - 1  # the cursor needs one
        text = shown(line(sample, room))
        left = room - len(text) - 1
        if sample.share is not None and left >= LEAST_METER:
            meter = tqdm.format_meter(sample.share, 1.0, 0.0, left, ascii=self._ascii, bar_format=METER_FORMAT)
            text = f"{meter} {text}"
        self._draw(text)
        if last:
            print(file=self._stream, flush=True)


class PlainLines:
    """A line whenever something else is waited for, and now and then."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waits_for: str | None = ""
        self._next = self._pause = 0.0

    def take(self, sample: Sample, *, last: bool) -> None:
        waits_for = sample.doing if sample.waited is not None else None
        if waits_for != self._waits_for:
            self._waits_for, self._next = waits_for, sample.seconds
            self._pause = LINE_SECONDS if waits_for is None else FIRST_SECONDS
        if last or sample.seconds >= self._next:
            say(line(sample), file=self._stream, flush=True)
            self._next = sample.seconds + self._pause
            self._pause = min(LINE_SECONDS, 2 * self._pause)


def columns(stream: TextIO) -> int:
    """Of a terminal, which may say 0, as those that no window belongs to."""
    found = 0
    with suppress(OSError, ValueError):
        found = os.get_terminal_size(stream.fileno()).columns
    with suppress(ValueError):
        found = found or int(os.environ.get("COLUMNS", "0"))
    return found if found > 0 else COLUMNS
