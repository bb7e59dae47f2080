"""Says what a command is at before rows come, never silent for long. `pipelines.progress` goes on then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.terminal import say
from pipelines.ticking import ticking

SILENT_SECONDS = 1.5  # at most; where there is no terminal, it is twice as long each time
LINE_SECONDS = 15.0  # at most


@contextmanager
def stage(text: str, *, short: bool = False) -> Iterator[None]:
    """A line on stderr at once, and how long it has taken for as long as this context is open: on a terminal in one
    place, elsewhere in more lines. One that is usually `short` is told only if it lasts."""
    stream, began, pause = sys.stderr, time.monotonic(), SILENT_SECONDS
    untold = short
    if not short:
        say(text, file=stream, flush=True)

    def tell(last: bool) -> float:
        nonlocal untold, pause
        seconds = f"{time.monotonic() - began:.0f} s"
        if last:
            return 0.0
        if untold:
            say(text, file=stream, flush=True)
            untold = False
        elif stream.isatty():  # the next line begins in its place
            print(f"  {seconds}", end="\r", file=stream, flush=True)
        else:
            say(f"{text}, {seconds}", file=stream, flush=True)
            pause = min(LINE_SECONDS, 2 * pause)
        return pause

    with ticking(tell, first=pause):
        yield
