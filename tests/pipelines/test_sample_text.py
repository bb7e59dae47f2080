"""The line that says how a run goes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.sample import Expected, Sample
from pipelines.sample_text import clock, line, per_time

FULL = Sample(
    Expected(40, rows=12_000),
    shards_done=12,
    rows=12_000,
    rows_done=3120.7,
    rows_rejected=3,
    rows_filtered=7,
    rows_per_second=412.3,
    seconds_left=130,
    doing="codes",
    step=23,
    steps=64,
)


@pytest.mark.parametrize(
    ("sample", "text"),
    [
        (
            FULL,
            "12/40 shards, 3,120/12,000 images, codes 23/64, 412/s, 2:10 left, 3 rejected, 7 filtered",
        ),
        (
            Sample(Expected(1, rows=20), rows=20, rows_done=0, doing="loading the model", waited=0.4),
            "0/20 images, loading the model",
        ),
        (
            Sample(Expected(1, rows=20), rows=20, rows_done=0, doing="loading the model", waited=62),
            "0/20 images, loading the model, 1:02",
        ),
        (Sample(Expected(4), rows_done=0, doing="reading", waited=0), "0/4 shards, reading"),
        (Sample(Expected(4), rows_done=7, doing=""), "0/4 shards, 7 images"),
        (Sample(Expected(4), shards_done=1, rows=28, rows_done=7), "1/4 shards, 7/~28 images"),
        (Sample(Expected(4), shards_done=1, rows_written=7), "1/4 shards, 7 images"),
        (
            Sample(Expected(6, 2, rows=30), shards_done=3, shards_failed=1, rows=22.5, rows_done=11, idle=75.0),
            "3/6 shards, 11/22 images, nothing new for 1:15, 1 shard FAILED",
        ),
        (Sample(Expected(2, rows=8), shards_done=2, rows=8, rows_done=8.0), "2/2 shards, 8/8 images"),
    ],
)
def test_a_line_says_how_far_how_fast_and_how_long(sample: Sample, text: str) -> None:
    assert line(sample) == text


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (80, "12/40 shards, 3,120/12,000 images, codes 23/64, 412/s, 2:10 left, 3 rejected"),
        (63, "3,120/12,000 images, codes 23/64, 412/s, 2:10 left"),
        (39, "3,120/12,000 images, 412/s, 2:10 left"),
        (30, "3,120/12,000 images, 2:10 left"),
        (5, "3,120/12,000 images"),
    ],
)
def test_a_narrow_line_keeps_what_matters_most(columns: int, text: str) -> None:
    assert line(FULL, columns) == text


def test_failed_shards_are_told_on_narrow_lines() -> None:
    assert line(replace(FULL, shards_failed=2), 50) == "3,120/12,000 images, 2:10 left, 2 shards FAILED"


@pytest.mark.parametrize(
    ("rate", "text"), [(412.3, "412/s"), (2.25, "2.2/s"), (0.4, "24/min"), (0.02, "1.2/min"), (0.001, "3.6/h")]
)
def test_slow_speeds_are_told_by_minute_or_hour(rate: float, text: str) -> None:
    assert per_time(rate) == text


@pytest.mark.parametrize(("seconds", "text"), [(5.4, "0:05"), (130, "2:10"), (7200, "2:00:00")])
def test_times(seconds: float, text: str) -> None:
    assert clock(seconds) == text
