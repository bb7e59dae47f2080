"""Something that is done again and again beside the work: the one thread that stages and progress are told by."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

END_SECONDS = 15.0  # at most, for the last call


@contextmanager
def ticking(call: Callable[[bool], float], first: float = 0.0) -> Iterator[None]:
    """While this context is open, `call(False)` is done in another thread, `first` seconds from now and then after as
    many seconds as it returned; `call(True)` at the end."""
    closing = threading.Event()

    def run() -> None:
        wait, last = first, False
        while not last:
            last = closing.wait(wait)
            wait = call(last)

    thread = threading.Thread(target=run, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join(END_SECONDS)
