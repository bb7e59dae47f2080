"""Speeds and times left by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import pytest

from pipelines.estimate import Estimate

TICK = 0.5


def told(done_at: Callable[[float], float], total: float, *, abreast: int = 1) -> Iterator[tuple[float, float | None]]:
    """What is told as left by when, until all is done."""
    estimate, now = Estimate(), 1000.0
    while (done := min(total, done_at(now - 1000.0))) < total:
        estimate.note(now, done, abreast=abreast)
        yield now - 1000.0, estimate.left(total - done)
        now += TICK


def steadily(*phases: tuple[float, float]) -> Callable[[float], float]:
    """What is done by when, for phases of seconds with a speed each; the last one lasts."""

    def done(seconds: float) -> float:
        sum_ = 0.0
        for length, speed in phases:
            sum_ += min(seconds, length) * speed
            seconds = max(0.0, seconds - length)
        return sum_ + seconds * phases[-1][1]

    return done


def ends(done_at: Callable[[float], float], total: float) -> float:
    now = 0.0
    while done_at(now) < total:
        now += TICK
    return now


def rises(seen: Sequence[tuple[float, float | None]]) -> list[float]:
    """When the time left was more than before."""
    times = [(now, left) for now, left in seen if left is not None]
    return [now for (_, before), (now, left) in pairwise(times) if left > before]


def in_batches(seconds: float, size: float, *offsets: float) -> Callable[[float], float]:
    """Workers that end a batch of `size` every so many seconds, each beginning at its offset."""
    return lambda now: sum(max(0, int((now - offset) / seconds)) * size for offset in offsets)


@pytest.mark.parametrize(
    ("done_at", "total", "abreast", "within"),
    [
        (steadily((0, 10.0)), 6000, 1, 4),  # steps within batches
        (steadily((90, 0.0), (0, 10.0)), 6000, 1, 4),  # compiled first
        (in_batches(20, 8, 0), 240, 1, 4),
        (in_batches(60, 8, 0, 7), 160, 2, 30),  # at the end one has nothing more to do
    ],
)
def test_the_time_left_is_right_from_soon_on_and_runs_like_a_clock(
    done_at: Callable[[float], float], total: float, abreast: int, within: float
) -> None:
    seen = list(told(done_at, total, abreast=abreast))
    end = ends(done_at, total)
    moved = next(now for now, _ in seen if done_at(now) > 0)
    settled = [(now, left) for now, left in seen if now > max(moved * 2, moved + 10)]
    assert settled
    for now, left in settled:
        assert left is not None
        assert left == pytest.approx(end - now, rel=0.2, abs=within), now
    assert len(rises(settled)) <= (3 if abreast > 1 else 0)


@pytest.mark.parametrize("speed", [5.0, 20.0])
def test_another_speed_is_told_within_half_a_minute_and_at_few_times(speed: float) -> None:
    done_at, total = steadily((300, 10.0), (0, speed)), 9000
    seen = list(told(done_at, total))
    end = ends(done_at, total)
    for now, left in seen:
        if now > 330:
            assert left == pytest.approx(end - now, rel=0.2, abs=4), now
    up = rises(seen)
    assert not up or up[-1] - up[0] < 30


def test_no_time_is_left_while_nothing_moves() -> None:
    done_at, total = steadily((60, 10.0), (120, 0.0), (0, 10.0)), 1200
    seen = dict(told(done_at, total))
    assert seen[55] == pytest.approx(65, abs=4)
    assert all(seen[now] is None for now in (71, 100, 150, 179))
    assert seen[220] == pytest.approx(20, rel=0.3)


def test_a_speed_falls_while_nothing_moves() -> None:
    estimate = Estimate()
    rates = []
    for now in range(120):
        estimate.note(now, 10.0 * min(now, 60))
        rates.append(estimate.rate)
    assert rates[60] == pytest.approx(10.0)
    assert rates[110] == pytest.approx(5.5, rel=0.1)
    assert estimate.idle() == 59


def test_what_is_taken_back_is_no_speed() -> None:
    estimate = Estimate()
    for now in range(100):
        estimate.note(now, 10.0 * now - (300 if now > 50 else 0))
        if now > 5:
            assert estimate.rate == pytest.approx(10.0, rel=0.03)


def test_an_end_that_is_overdue_is_not_told() -> None:
    """The last rows of a batch that has room for more."""
    seen = list(told(lambda now: 8.0 * int(min(now, 100) / 10) + 8 * (now >= 200), 81))
    assert [left for now, left in seen if now > 125] == [None] * len([now for now, _ in seen if now > 125])
