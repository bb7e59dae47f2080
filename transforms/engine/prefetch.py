"""Two bounded queues: run an iterator ahead of its consumer, and a consumer behind its producer, each in one thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")
POLL_SECONDS = 0.1  # how soon a blocked side notices that the other has gone


class _End:
    """Closes a queue; carries the exception of the producing side."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Yield `items` in order while a thread produces up to `depth` of them in advance.

    An exception of the producer is raised here, after the items before it. Closing the generator ends the thread.
    """
    buffer: queue.Queue[T | _End] = queue.Queue(depth)
    closed = threading.Event()

    def put(item: T | _End) -> bool:
        while not closed.is_set():
            try:
                buffer.put(item, timeout=POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        error: BaseException | None = None
        iterator = iter(items)
        try:
            for item in iterator:
                if not put(item):
                    break
        except BaseException as raised:  # handed over to the consumer
            error = raised
        finally:
            if hasattr(iterator, "close"):
                iterator.close()
            put(_End(error))

    thread = threading.Thread(target=produce, name="vqbeam-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = buffer.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        closed.set()
        thread.join()


class Behind(Generic[T]):
    """Calls `consume(item)` in a thread, in order, at most `depth` items late.

    Its exceptions are raised by the next `put` or by `close`. `close(drop=True)` drops the waiting items.
    """

    def __init__(self, consume: Callable[[T], None], depth: int) -> None:
        self._consume = consume
        self._buffer: queue.Queue[T | _End] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vqbeam-behind", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        self._put(item)
        self._raise()

    def close(self, drop: bool = False) -> None:
        if drop:
            self._done.set()
        self._put(_End(None))
        self._thread.join()
        if not drop:
            self._raise()

    def _put(self, item: T | _End) -> None:
        while self._thread.is_alive():
            try:
                return self._buffer.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not isinstance(item := self._buffer.get(), _End):
                if self._done.is_set():
                    return
                self._consume(item)
        except BaseException as raised:  # handed over to the producer
            self._error = raised
