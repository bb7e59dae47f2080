"""The threads that share the work of a call of machine code; `models/team.py` is what they do there."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np

LINE = 8  # int64 of a line of the cache: counters that share one would slow each other down


class Threads:
    """Runs a compiled function in several threads, which take its parts from one another; one call at a time."""

    def __init__(self) -> None:
        self._helpers: list[Future[Any]] = []
        self._pool: ThreadPoolExecutor | None = None

    def run(self, function: Callable[..., Any], *arguments: Any, turns: int, threads: int) -> Any:
        """`function(*arguments, board, number of the thread)`, all parts of which are done then; -> the caller's.

        A helper that has not come back from an earlier call is not called for this one. Raises what a helper raised
        in a call before, once.
        """
        board = np.zeros((turns, 1 + threads, LINE), np.int64)
        if threads > 1 and (self._pool is None or len(self._helpers) != threads - 1):
            self._pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="helper")
            self._helpers = [_ended() for _ in range(threads - 1)]
        for number in range(threads - 1):
            if self._helpers[number].done():
                before, self._helpers[number] = self._helpers[number], _ended()
                before.result()
                assert self._pool is not None
                with suppress(RuntimeError):  # Python is about to end: the caller does it alone
                    self._helpers[number] = self._pool.submit(function, *arguments, board, number + 1)
        return function(*arguments, board, 0)


def _ended() -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(None)
    return future
