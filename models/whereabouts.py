"""Where a long call of a model is, told to a watcher of the thread that makes the call, if there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

COMPILING = "compiling"
CODES = "codes"  # drawn, of each image
PAINTING = "painting"
SCORING = "scoring"

Watcher = Callable[[str, int, int], None]  # a part of the call, how much of it is done, and of how much

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def tell(part: str, done: int = 0, of: int = 0) -> None:
    """Say that this thread is in a `part` of a call; `of` 0 if that has no steps."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(part, done, of)


@contextmanager
def watched(by: Watcher) -> Iterator[None]:
    """While this context is open, `by` is called with what this thread tells."""
    token = _watcher.set(by)
    try:
        yield
    finally:
        _watcher.reset(token)
