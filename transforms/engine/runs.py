"""Runs in a worker process that outlives them, and that the launcher can call functions in, such as one of Dask."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from apache_beam.utils.shared import Shared

_stopped: set[str] = set()  # runs that are to stop
_at_work: Counter[str] = Counter()  # threads of this process that are at work, by run
_lock = threading.Lock()


class _Nothing:
    """Takes the place of what Beam keeps."""


def stop(run: str) -> None:
    """Have the threads of this process drop what they do for a run, and begin nothing more."""
    _stopped.add(run)


def is_stopped(run: str) -> bool:
    """Whether a run is to stop."""
    return run in _stopped


@contextmanager
def at_work(run: str) -> Iterator[None]:
    """While this context is open, a thread of this process works for a run."""
    with _lock:
        _at_work[run] += 1
    try:
        yield
    finally:
        with _lock:
            _at_work[run] -= 1


def threads_at_work(run: str) -> int:
    """The threads of this process that work for a run."""
    return _at_work[run]


def forget(run: str) -> None:
    """Let go of the model and all else that this process keeps for a run that is over."""
    _stopped.discard(run)
    _at_work.pop(run, None)
    Shared().acquire(_Nothing)  # Beam keeps what was asked for last
