"""Ctrl-C and SIGTERM: the first asks the workers to drop what is in flight, the second or a deadline ends them.

Before and after the pipeline runs, the signals are exceptions that unwind the command (`interruptible`); while it
runs they are a request that travels to the workers through the scratch folder (`StopSignals`).
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

from transforms.engine.monitor import request_stop

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ECHO_SECONDS = 1.0  # `timeout`, process groups and our supervisor deliver one request twice: that is not a second one
DROPPING = "Stopping: shards in flight are dropped. Once more to stop at once."

_asked_at = float("-inf")  # when a signal last asked this process to stop, by `time.monotonic`


class Terminated(KeyboardInterrupt):
    """SIGTERM came; a KeyboardInterrupt to libraries that tidy up on Ctrl-C."""


class LeftRunning(KeyboardInterrupt):
    """The signal `number` came, and a job elsewhere was not stopped; `told` says what is to be known of it."""

    def __init__(self, number: int, told: str) -> None:
        super().__init__(told)
        self.number = number
        self.told = told


def exit_code(number: int) -> int:
    """130 for SIGINT, 143 for SIGTERM."""
    return 128 + number


@contextmanager
def handled(handlers: Mapping[int, Any]) -> Iterator[None]:
    """Signals are handled by `handlers` while this context is open, and as before after it."""
    before: dict[int, Any] = {}
    try:
        for number, handler in handlers.items():
            before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interruptible() -> AbstractContextManager[None]:
    """Makes SIGTERM unwind the stack as Ctrl-C does, even if the parent process ignored both; an echo does nothing."""
    global _asked_at
    _asked_at = float("-inf")

    def unwind(number: int, frame: FrameType | None) -> None:
        global _asked_at
        before, _asked_at = _asked_at, time.monotonic()
        if _asked_at - before > ECHO_SECONDS:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    return handled({signal.SIGTERM: unwind, signal.SIGINT: unwind})


class StopSignals:
    """Makes signals a request to the workers of the run in `scratch`, which have `grace` seconds to stop.

    `take` handles the signals, and prints `told` at the first. `number` is the first one that came, None if none did.
    """

    def __init__(self, scratch: str, grace: float, told: str = DROPPING) -> None:
        self.number: int | None = None
        self._scratch = scratch
        self._grace = grace
        self._first = threading.Lock()  # taken by the first signal: another may come while its handler runs
        self._begin = float("inf")  # when it came
        self._told = told
        self.insisted = False  # by a second signal

    def overdue(self) -> bool:
        """Whether the workers have had their time to stop, or a second signal says not to wait for them."""
        return self.number is not None and (self.insisted or time.monotonic() - self._begin > self._grace)

    def take(self, number: int, frame: FrameType | None) -> None:
        global _asked_at
        now = _asked_at = time.monotonic()
        if self._first.acquire(blocking=False):
            self._begin = now
            self.number = number
            request_stop(self._scratch)
            print(f"\n{self._told}", file=sys.stderr, flush=True)
        elif now - self._begin > ECHO_SECONDS:
            self.insisted = True
