"""Running ahead and behind in threads: order, bounds, errors, and no thread left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from transforms.engine.prefetch import Behind, ahead


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert [thread.name for thread in set(threading.enumerate()) - before] == []


def test_ahead_keeps_the_order() -> None:
    assert list(ahead(range(100), 3)) == list(range(100))


def test_ahead_produces_no_more_than_its_depth_in_advance() -> None:
    made: list[int] = []
    full = threading.Event()

    def items() -> Iterator[int]:
        for item in range(10):
            made.append(item)
            if item == 3:  # one at the consumer, two waiting, one in hand
                full.set()
            yield item

    stream = ahead(items(), 2)
    assert next(stream) == 0
    assert full.wait(10)
    assert made == [0, 1, 2, 3]
    assert list(stream) == list(range(1, 10))


def test_ahead_raises_what_producing_raised_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("disk")

    stream = ahead(items(), 1)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(OSError, match="disk"):
        next(stream)


def test_closing_ahead_ends_its_thread_and_closes_the_source() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    stream = ahead(items(), 2)
    next(stream)
    stream.close()
    assert closed.is_set()


def test_closing_ahead_before_it_began_starts_nothing() -> None:
    began: list[int] = []

    def items() -> Iterator[int]:
        began.append(1)
        yield 0

    ahead(items(), 1).close()
    assert began == []


def test_behind_consumes_everything_in_order() -> None:
    seen: list[int] = []
    behind = Behind(seen.append, 2)
    for item in range(50):
        behind.put(item)
    behind.close()
    assert seen == list(range(50))


def put_many(behind: Behind[int]) -> None:
    for item in range(10):
        behind.put(item)


def test_behind_raises_what_consuming_raised_at_the_next_put_or_at_close() -> None:
    failed = threading.Event()

    def consume(item: int) -> None:
        failed.set()
        raise OSError("full")

    behind: Behind[int] = Behind(consume, 1)
    behind.put(1)
    assert failed.wait(10)
    with pytest.raises(OSError, match="full"):
        put_many(behind)
    with pytest.raises(OSError, match="full"):
        behind.close()
    behind.close(drop=True)


def test_dropping_abandons_what_waits() -> None:
    gate, began = threading.Event(), threading.Event()
    seen: list[int] = []

    def consume(item: int) -> None:
        began.set()
        assert gate.wait(10)
        seen.append(item)

    behind: Behind[int] = Behind(consume, 2)
    for item in range(3):
        behind.put(item)
    assert began.wait(10)
    closing = threading.Thread(target=behind.close, kwargs={"drop": True})
    closing.start()
    while not behind._done.is_set():
        pass
    gate.set()
    closing.join(10)
    assert not closing.is_alive()
    assert seen == [0]
