"""What is known of a run, from its counters."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.sample import Expected, Reckoning, Sample, Sampler
from transforms.engine.monitor import COUNTERS, At, Monitor


def totals(**counts: float) -> dict[str, float]:
    return {**dict.fromkeys(COUNTERS, 0.0), **counts}


AT_WORK = {"shards_in_flight": 1, "models_loaded": 1}


@pytest.mark.parametrize(
    ("counts", "whereabouts", "doing"),
    [
        ({}, [], "starting a worker"),
        ({"shards_in_flight": 1}, [], "loading the model"),
        ({"shards_in_flight": 1}, [At("compiling")], "compiling"),
        (AT_WORK, [], "reading"),
        (AT_WORK, [At("batch")], "the first batch is at work"),
        (AT_WORK, [At("codes", 0, 64)], "codes"),
        (AT_WORK | {"rows_done": 1.5}, [At("codes", 12, 64)], "codes"),
        (AT_WORK | {"rows_done": 1.5}, [At("batch")], ""),
        (AT_WORK | {"rows_done": 1.5}, [At("codes", 12, 64), At("codes", 1, 64)], ""),
        (AT_WORK | {"rows_done": 8}, [], "writing"),
        ({"shards_done": 1, "rows_done": 8}, [], ""),
    ],
)
def test_it_is_said_what_the_run_is_at(counts: dict[str, float], whereabouts: list[At], doing: str) -> None:
    assert Reckoning(Expected(1, rows=8), 0.0).sample(1.0, totals(**counts), whereabouts).doing == doing


def test_a_wait_is_counted_for_each_thing_that_is_waited_for() -> None:
    reckoning = Reckoning(Expected(1, rows=8), 0.0)
    seen = [(now, reckoning.sample(now, totals(**counts))) for now, counts in ((3.0, {}), (5.0, {}), (9.0, AT_WORK))]
    assert [(now, sample.doing, sample.waited) for now, sample in seen] == [
        (3.0, "starting a worker", 0.0),
        (5.0, "starting a worker", 2.0),
        (9.0, "reading", 0.0),
    ]
    assert reckoning.sample(12.0, totals(**AT_WORK, rows_done=0.1)).waited is None


def run(expected: Expected, rows_a_second: float, seconds: int, **counts: float) -> Sample:
    """The last sample of a run at a steady speed."""
    reckoning = Reckoning(expected, 0.0)
    for now in range(seconds + 1):
        done = rows_a_second * now
        sample = reckoning.sample(float(now), totals(**AT_WORK, rows_done=done, places_done=done, **counts))
    return sample


def test_share_speed_and_time_left_count_the_same_rows() -> None:
    sample = run(Expected(10, 4, rows=600), 2.0, 60)
    assert (sample.share, sample.rows_per_second, sample.seconds_left) == (0.2, pytest.approx(2.0), pytest.approx(240))


def test_shards_that_failed_are_not_waited_for() -> None:
    sample = run(Expected(6, rows=600), 2.0, 60, shards_failed=2)
    assert (sample.rows, sample.seconds_left) == (pytest.approx(400), pytest.approx(140))


def test_rows_that_were_not_counted_are_reckoned_from_shards_that_are_done() -> None:
    assert run(Expected(6, rows=None), 2.0, 60).share is None
    sample = run(Expected(6, rows=None), 2.0, 60, shards_done=3, rows_of_done_shards=90)
    assert (sample.rows, sample.share) == (180, pytest.approx(2 / 3))


def test_a_batch_that_is_not_full_takes_as_long() -> None:
    """20 images in batches of 8, whose last has 4: a third of the time is left when 16 are done."""
    reckoning = Reckoning(Expected(1, rows=20, places=24), 0.0)
    for now in range(0, 161, 2):
        done = now / 10
        sample = reckoning.sample(float(now), totals(**AT_WORK, rows_done=done, places_done=done))
    assert sample.seconds_left == pytest.approx(80)
    sample = reckoning.sample(200.0, totals(**AT_WORK, rows_done=18, places_done=20))
    assert sample.seconds_left == pytest.approx(40, abs=4)


def test_no_time_is_left_once_all_rows_are_done() -> None:
    sample = run(Expected(2, rows=120), 2.0, 60)
    assert (sample.share, sample.seconds_left, sample.doing) == (1.0, None, "writing")
    ended = run(Expected(2, rows=120), 2.0, 90, shards_done=2)
    assert (ended.doing, ended.idle) == ("", 0.0)


def test_a_sample_is_what_the_workers_wrote(tmp_path: Path) -> None:
    first, second = Monitor(str(tmp_path)), Monitor(str(tmp_path))
    sampler = Sampler(str(tmp_path), Expected(2, rows=10), clock=lambda: 7.0)
    assert sampler.look().doing == "starting a worker"
    first.add(shards_in_flight=1, models_loaded=1, rows_done=2.5, rows_rejected=1)
    first.at("codes", 3, 16)
    second.add(shards_in_flight=1, rows_done=1, model_seconds=2)
    sample = sampler.look()
    assert (sample.rows_done, sample.rows_rejected, sample.shards_in_work) == (3.5, 1, 2)
    assert (sample.doing, sample.step, sample.steps) == ("codes", 3, 16)
    assert sample.stages["model"] == 2
