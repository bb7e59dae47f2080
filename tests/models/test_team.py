"""Threads that take parts of the same work from one another."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

pytest.importorskip("numba")

from models.machine_code import compiled
from models.team import NONE, member, parts_of, take
from models.threads import LINE, Threads

TURNS, COUNT = 40, 50


@compiled
def _work(found, by, board, number):  # type: ignore[no-untyped-def]
    """In each turn a value becomes the sum of all and its place: wrong if a turn begins before another has ended."""
    team = member(board, number)
    for turn in range(len(found) - 1):
        parts = parts_of(team, found.shape[1])
        part = take(team, parts, NONE)
        while part != NONE:
            for i in range(found.shape[1] * part // parts, found.shape[1] * (part + 1) // parts):
                whole = 0
                for value in found[turn]:
                    whole = (whole + value) % 1_000_003
                found[turn + 1, i] = whole + i
                by[turn, i] = number
            part = take(team, parts, part)
    return team.turn[0]


def _arrays() -> tuple[np.ndarray, np.ndarray]:
    found = np.zeros((TURNS + 1, COUNT), np.int64)
    found[0] = np.arange(COUNT)
    return found, np.full((TURNS, COUNT), -1)


@pytest.fixture
def expected() -> np.ndarray:
    found, by = _arrays()
    assert _work(found, by, np.zeros((TURNS, 2, LINE), np.int64), 0) == TURNS
    assert not by.any()
    return found


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_every_part_is_done_once_all_of_the_turn_before_are_done(threads: int, expected: np.ndarray) -> None:
    helpers = Threads()
    for _ in range(30):
        found, by = _arrays()
        assert helpers.run(_work, found, by, turns=TURNS, threads=threads) == TURNS
        np.testing.assert_array_equal(found, expected)
        assert set(by.flat) <= set(range(threads))


def test_nobody_waits_for_a_helper_that_does_not_run_and_it_is_not_called_twice(expected: np.ndarray) -> None:
    helpers, held, calls = Threads(), threading.Event(), []

    def work(found: np.ndarray, by: np.ndarray, board: np.ndarray, number: int) -> int:
        calls.append(number)
        if number:
            held.wait(60)
        return int(_work(found, by, board, number))

    for _ in range(3):
        found, by = _arrays()
        assert helpers.run(work, found, by, turns=TURNS, threads=2) == TURNS
        assert not by.any()  # all by the caller
    deadline = time.monotonic() + 60
    while 1 not in calls:  # the system may start it late
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert calls.count(1) == 1
    before = found.copy(), by.copy()
    held.set()
    helpers._helpers[0].result(60)  # comes late, finds nothing left and changes nothing
    np.testing.assert_array_equal(found, before[0])
    np.testing.assert_array_equal(by, before[1])
    np.testing.assert_array_equal(found, expected)


def test_a_helper_takes_what_the_caller_does_not_come_to() -> None:
    helpers, done = Threads(), threading.Event()

    def work(found: np.ndarray, by: np.ndarray, board: np.ndarray, number: int) -> int:
        if number == 0:
            assert done.wait(60)
        turns = _work(found, by, board, number)
        done.set()
        return int(turns)

    found, by = _arrays()
    assert helpers.run(work, found, by, turns=TURNS, threads=2) == TURNS
    assert (by == 1).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_turn_too_many_is_an_error_and_no_wait(threads: int) -> None:
    with pytest.raises(IndexError, match="more turns than"):
        Threads().run(_work, *_arrays(), turns=TURNS - 1, threads=threads)


def test_what_a_helper_raises_is_raised_by_the_next_call_and_by_no_other() -> None:
    helpers, failing = Threads(), [1]

    def work(board: np.ndarray, number: int) -> int:
        if number and failing:
            raise MemoryError(f"no room {failing.pop()}")
        return number

    assert helpers.run(work, turns=1, threads=2) == 0
    helpers._helpers[0].exception(60)
    with pytest.raises(MemoryError, match="no room 1"):
        helpers.run(work, turns=1, threads=2)
    for _ in range(2):
        assert helpers.run(work, turns=1, threads=2) == 0
        assert helpers._helpers[0].result(60) == 1
