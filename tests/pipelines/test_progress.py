"""What the screen shows during a run, on terminals of several sizes and where there is none."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest

from pipelines import progress as progress_module
from pipelines.progress import Bar, PlainLines, progress
from pipelines.sample import Expected, Sample
from transforms.engine.monitor import Monitor


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


def test_plain_lines_appear_during_the_run_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "LINE_SECONDS", 0.01)
    monkeypatch.setattr(progress_module, "TICK_SECONDS", 0.01)
    shown = Lines()
    worker = Monitor(str(tmp_path))
    with progress(str(tmp_path), Expected(2, rows=10), shown):
        worker.add(rows_done=5, shards_in_flight=1)
        shown.wait_for("0/2 shards, 5/10 images")
        worker.add(shards_done=2, shards_in_flight=-1, rows_done=5, rows_rejected=1)
    last = shown.getvalue().splitlines()[-1]
    assert last.startswith("2/2 shards, 10/10 images")
    assert last.endswith("1 rejected")
    assert "\r" not in shown.getvalue()


def test_on_a_terminal_one_line_is_drawn_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "TICK_SECONDS", 0.01)
    shown = Lines(terminal=True)
    worker = Monitor(str(tmp_path))
    with progress(str(tmp_path), Expected(2, rows=10), shown):
        worker.add(shards_done=1, rows_done=5)
        shown.wait_for("1/2 shards, 5/10 images")
    assert "\r 50%|" in shown.getvalue()
    assert shown.getvalue().count("\n") == 1


def wait(seconds: float, doing: str) -> Sample:
    return Sample(Expected(1, rows=8), seconds=seconds, rows=8, rows_done=0, doing=doing, waited=seconds)


def test_what_is_waited_for_is_said_at_once_and_then_less_and_less_often() -> None:
    shown = Lines()
    screen = PlainLines(shown)
    for tick in range(241):
        screen.take(wait(tick / 2, "starting a worker" if tick < 4 else "loading the model"), last=False)
    lines = shown.getvalue().splitlines()
    assert [line for line in lines if "starting" in line] == [
        "0/8 images, starting a worker",
        "0/8 images, starting a worker, 0:02",
    ]
    assert 9 <= len([line for line in lines if "loading" in line]) <= 12


def test_work_is_told_every_quarter_of_a_minute_though_the_part_of_a_batch_changes() -> None:
    shown = Lines()
    screen = PlainLines(shown)
    for tick in range(121):
        part = ("codes", 5, 64) if tick % 2 else ("painting", 1, 4)
        done = Sample(Expected(1, rows=8), 0, tick / 2, *part, rows=8, rows_done=tick / 100)
        screen.take(done, last=False)
    assert len(shown.getvalue().splitlines()) == 5


@contextmanager
def terminal(columns: int) -> Iterator[tuple[TextIO, int]]:
    """A terminal so wide, 0 if it does not say it; and where what is shown comes out."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        yield stream, reader
    os.close(reader)


RUNNING = Sample(
    Expected(40, rows=12_000),
    shards_done=12,
    rows=12_000,
    rows_done=3120,
    rows_rejected=3,
    rows_per_second=412.0,
    seconds_left=130,
)


LINE = "12/40 shards, 3,120/12,000 images, 412/s, 2:10 left, 3 rejected"


@pytest.mark.parametrize(
    ("columns", "text", "meter"),
    [(100, LINE, True), (80, LINE, False), (40, "3,120/12,000 images, 412/s, 2:10 left", False), (0, LINE, False)],
)
def test_the_line_fits_and_the_bar_takes_the_room_that_is_left(
    columns: int, text: str, meter: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    with terminal(columns) as (stream, reader):
        Bar(stream).take(RUNNING, last=True)
        shown = os.read(reader, 1000).decode()
    last = shown.rstrip().rpartition("\r")[2]
    assert last.endswith(text)
    assert last.startswith(" 26%|█████") == meter
    assert len(last) < (columns or 80)


def test_a_terminal_that_knows_no_blocks_gets_other_characters() -> None:
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w", encoding="ascii") as stream:
        Bar(stream).take(RUNNING, last=True)
        assert "##" in os.read(reader, 1000).decode()
    os.close(reader)
