"""What the screen says during a run."""

from __future__ import annotations

import io
import threading

import pytest

from pipelines import screen
from pipelines.screen import Expected, describe, progress, share_done
from transforms.engine.monitor import COUNTERS, Monitor


def totals(**counts: float) -> dict[str, float]:
    return {**dict.fromkeys(COUNTERS, 0), **counts}


@pytest.mark.parametrize(
    ("counts", "expected", "seconds", "text"),
    [
        ({}, Expected(4), 0, "0/4 shards, starting"),
        ({}, Expected(4, shards_before=3), 0, "3/4 shards, starting"),
        ({"shards_in_flight": 1}, Expected(4), 0, "0/4 shards, loading the model"),
        ({"shards_in_flight": 1, "models_loaded": 1}, Expected(4), 0, "0/4 shards, reading"),
        (
            {"shards_in_flight": 1, "models_loaded": 1, "rows_read": 9},
            Expected(4),
            3,
            "0/4 shards, the first batch is at work",
        ),
        (
            {"shards_done": 2, "rows_read": 3000, "rows_written": 2990, "rows_rejected": 3, "rows_filtered": 7},
            Expected(10, shards_before=0, rows=12000),
            10,
            "2/10 shards, 2,990 images, 299 images/s, 3 rejected, 7 filtered, 0:30 left",
        ),
        (
            {"shards_done": 1, "shards_failed": 1, "rows_read": 30, "rows_written": 30},
            Expected(6, shards_before=2),
            7200,
            "3/6 shards, 30 images, 0.0 images/s, 1 shard FAILED, 2:00:00 left",
        ),
        (
            {"shards_done": 4, "rows_read": 8, "rows_written": 8},
            Expected(4, rows=8),
            2,
            "4/4 shards, 8 images, 4.0 images/s",
        ),
    ],
)
def test_the_line_says_how_far_how_fast_and_how_long(counts, expected, seconds, text):
    assert describe(totals(**counts), expected, seconds) == text


def test_rows_move_the_bar_within_a_shard_and_earlier_shards_count():
    assert share_done(totals(rows_read=50), Expected(4, 2, rows=200), whole=True) == pytest.approx(0.625)
    assert share_done(totals(rows_read=50), Expected(4, 2, rows=200), whole=False) == pytest.approx(0.25)
    assert share_done(totals(shards_done=1), Expected(4, 2), whole=True) == pytest.approx(0.75)
    assert share_done(totals(), Expected(4, 4), whole=True) == 1
    assert share_done(totals(rows_read=300), Expected(4, 0, rows=200), whole=True) == 1


def test_plain_lines_appear_during_the_run_where_there_is_no_terminal(tmp_path, monkeypatch):
    monkeypatch.setattr(screen, "LINE_SECONDS", 0.01)
    shown = Lines()
    worker = Monitor(str(tmp_path))
    with progress(str(tmp_path), Expected(2, rows=10), shown):
        worker.add(rows_read=5, rows_written=5)
        shown.wait_for("0/2 shards, 5 images")
        worker.add(shards_done=2, rows_read=5, rows_written=4, rows_rejected=1)
    last = shown.getvalue().splitlines()[-1]
    assert last.startswith("2/2 shards, 9 images")
    assert last.endswith("1 rejected")
    assert "\r" not in shown.getvalue()


def test_on_a_terminal_one_line_is_drawn_over(tmp_path, monkeypatch):
    monkeypatch.setattr(screen, "BAR_SECONDS", 0.01)
    shown = Lines(terminal=True)
    worker = Monitor(str(tmp_path))
    with progress(str(tmp_path), Expected(2, rows=10), shown):
        worker.add(shards_done=1, rows_read=5, rows_written=5)
        shown.wait_for("1/2 shards, 5 images")
    assert "\r" in shown.getvalue()
    assert " 50%|" in shown.getvalue()
    assert shown.getvalue().count("\n") == 1


class Lines(io.StringIO):
    """A screen that a test can wait on."""

    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def wait_for(self, text: str) -> None:
        while text not in self.getvalue():
            threading.Event().wait(0.005)
