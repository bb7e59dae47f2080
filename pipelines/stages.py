"""Says what a command is at before rows come, so that it is never silent for long. `pipelines.screen` goes on then."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.terminal import say

SILENT_SECONDS = 1.5  # at most, and what comes between two stages


@contextmanager
def stage(text: str, *, short: bool = False) -> Iterator[None]:
    """A line on stderr at once, and how long it has taken for as long as this context is open: on a terminal in one
    place, elsewhere in more lines. One that is usually `short` is told only if it lasts."""
    if not short:
        say(text, file=sys.stderr, flush=True)
    closing = threading.Event()
    thread = threading.Thread(target=_tell, args=(text, closing, short), name="stage", daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join()


def _tell(text: str, closing: threading.Event, untold: bool) -> None:
    stream, began = sys.stderr, time.monotonic()
    while not closing.wait(SILENT_SECONDS):
        seconds = f"{time.monotonic() - began:.0f} s"
        if untold:
            say(text, file=stream, flush=True)
            untold = False
        elif stream.isatty():  # the next line begins in its place
            print(f"  {seconds}", end="\r", file=stream, flush=True)
        else:
            say(f"{text}, {seconds}", file=stream, flush=True)
