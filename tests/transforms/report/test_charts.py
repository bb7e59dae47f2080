"""The geometry of charts: what is counted where, and that all of it is inside the box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.report.charts import BOTTOM, LEFT, RATIOS, RIGHT, TOP, Chart, code_use, histogram, ratios, speeds
from transforms.report.speed import Speed


def told(chart: Chart | None) -> list[str]:
    assert chart is not None
    return [bar.told for bar in chart.bars]


def check_inside(chart: Chart) -> None:
    for bar in chart.bars:
        assert bar.x >= LEFT
        assert bar.x + bar.width <= RIGHT + 1e-6
        assert bar.y >= TOP - 1e-6
        assert bar.y + bar.height == pytest.approx(BOTTOM)


def test_small_whole_numbers_have_a_bar_each() -> None:
    assert told(histogram("words", "words", np.array([3, 3, 5]), whole=True)) == ["3: 2", "4: 0", "5: 1"]


def test_many_whole_numbers_share_bars() -> None:
    assert told(histogram("letters", "letters", np.arange(100), whole=True))[:2] == ["0 to 4: 5", "5 to 9: 5"]


def test_no_numbers_make_no_chart() -> None:
    assert histogram("PSNR", "dB", np.zeros(0)) is None


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.booleans())
def test_every_number_is_in_one_bar(values: list[float], whole: bool) -> None:
    numbers = np.array(values).round() if whole else np.array(values)
    chart = histogram("any", "numbers", numbers, whole=whole)
    assert sum(int(text.rpartition(": ")[2].replace(",", "")) for text in told(chart)) == len(values)
    assert chart is not None
    assert len(chart.bars) <= 60
    check_inside(chart)


def test_images_are_counted_by_the_nearest_ratio() -> None:
    chart = ratios(
        "ratios", {(100, 300): 1, (300, 400): 2, (64, 64): 4, (640, 480): 8, (1600, 900): 16, (900, 100): 32}
    )
    counts = dict(zip(RATIOS, (int(text.rpartition(": ")[2]) for text in told(chart)), strict=True))
    assert {name: count for name, count in counts.items() if count} == {
        "≤1:3": 1,
        "3:4": 2,
        "1:1": 4,
        "4:3": 8,
        "2:1": 16,
        "≥3:1": 32,
    }
    check_inside(chart)


def test_codes_are_counted_by_how_often_they_are_used() -> None:
    assert told(code_use("use", np.array([0, 0, 1, 2, 3, 3, 7, 8])))[:5] == [
        "used 0 times: 2 codes",
        "used 1 times: 1 codes",
        "used 2 to 3 times: 3 codes",
        "used 4 to 7 times: 1 codes",
        "used 8 to 15 times: 1 codes",
    ]


def test_a_line_is_broken_where_nothing_was_done() -> None:
    rates = np.array([10.0, 10.0, 0.0, 100.0])
    speed = Speed(np.linspace(0, 40, 5), rates, {"model": np.full(4, np.nan)}, 4, 4)
    chart = speeds("speed", "images", speed)
    assert chart is not None
    (line,) = chart.lines
    assert [len(piece.split()) for piece in line.pieces] == [2, 2]
    heights = [float(point.split(",")[1]) for piece in line.pieces for point in piece.split()]
    assert heights == [BOTTOM, BOTTOM, TOP, TOP]


def test_a_job_that_wrote_nothing_has_no_speed() -> None:
    assert speeds("speed", "images", Speed(np.array([0.0, 1.0]), np.zeros(1), {}, 1, 1)) is None
