"""`vqbeam status` and `watch` beside a run."""

from __future__ import annotations

import os
import pty
import shutil
import threading
import time
from pathlib import Path

import pytest

from pipelines.__main__ import main
from tests.support.paths import SAMPLE


@pytest.fixture
def halfway(tmp_path: Path) -> Path:
    """A job with one of three shards left."""
    output = tmp_path / "t"
    words = ["--input", str(SAMPLE / "emoji-00000.tar"), "--output", str(output), "--limit", "6"]
    assert main(["encode", *words, "--rows_per_shard", "2"]) == 0
    for name in ("_SUCCESS", "_vqbeam/stats/00001.json"):
        shutil.move(output / name, tmp_path / Path(name).name)
    (output / "_vqbeam" / "attempts").mkdir(exist_ok=True)
    (output / "_vqbeam" / "attempts" / "00001.abc").touch()
    return output


def finish(output: Path) -> None:
    shutil.move(output.parent / "00001.json", output / "_vqbeam" / "stats" / "00001.json")
    shutil.move(output.parent / "_SUCCESS", output / "_SUCCESS")


def test_status_says_what_is_in_work_and_when_the_last_sign_was(
    halfway: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["status", str(halfway)]) == 0
    told = capsys.readouterr().out
    assert "  in work    1 shard (00001), or left by a worker that was lost\n" in told
    assert "  pace       " in told
    assert "  last sign  0:00:" in told


def test_watch_ends_with_the_job(halfway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    threading.Timer(1.0, finish, [halfway]).start()
    began = time.monotonic()
    assert main(["watch", str(halfway), "--every", "0.2"]) == 0
    assert time.monotonic() - began >= 1.0
    told = capsys.readouterr().out
    assert told.count(": encode, not complete\n") >= 2
    assert told.count(": encode, complete\n") == 1


def test_watch_draws_over_what_it_drew_on_a_terminal(halfway: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(halfway)
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w") as terminal, os.fdopen(reader, "rb", buffering=0) as screen:
        monkeypatch.setattr("sys.stdout", terminal)
        assert main(["watch", str(halfway)]) == 0
        assert screen.read(1000).startswith(b"\x1b[H\x1b[J" + str(halfway).encode())
