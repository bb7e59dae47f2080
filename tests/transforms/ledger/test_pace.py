"""How a job goes, by the times of its marks and attempts."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pipelines.__main__ import main
from tests.support.paths import SAMPLE
from transforms.ledger.pace import LAST, QUIET, pace_of

BEGAN = 1_700_000_000.0


def job(folder: Path, shards: int, *, seconds: float, rows: int) -> Path:
    """An output folder whose shards were done one after another."""
    assert main(["encode", "--input", str(SAMPLE / "emoji-00000.tar"), "--output", str(folder), "--limit", "2"]) == 0
    stats = folder / "_vqbeam" / "stats"
    mark = json.loads((stats / "00000.json").read_text()) | {"rows_written": rows}
    for number in range(shards):
        path = stats / f"{number:05d}.json"
        path.write_text(json.dumps(mark | {"shard": number}))
        os.utime(path, (BEGAN + number * seconds,) * 2)
    return folder


def test_the_last_shards_say_how_fast_they_come(tmp_path: Path) -> None:
    output = job(tmp_path / "out", LAST + 20, seconds=10, rows=500)
    os.utime(output / "_vqbeam" / "stats" / "00000.json", (BEGAN - 90_000,) * 2)  # another day: it is none of the last
    pace = pace_of(str(output))
    last = BEGAN + (LAST + 19) * 10
    assert (pace.last_sign, pace.rate, pace.shard_rows, pace.longest_gap) == (last, 50.0, 500.0, 10.0)
    assert pace.seconds_left(7, last + 30) == 70.0
    assert pace.seconds_left(7, last + QUIET + 31) is None, "nothing seems to run"


def test_attempts_are_shards_in_work_until_they_are_done(tmp_path: Path) -> None:
    output = job(tmp_path / "out", 2, seconds=10, rows=500)
    attempts = output / "_vqbeam" / "attempts"
    attempts.mkdir(exist_ok=True)
    for name, time in (("00001.abc", 5), ("00002.abc", 12), ("00002.def", 15), ("a100000.abc", 14)):
        (attempts / name).touch()
        os.utime(attempts / name, (BEGAN + time,) * 2)
    pace = pace_of(str(output))
    assert (pace.in_work, pace.last_sign, pace.rows_in_work) == ((2, 100_000), BEGAN + 15, None)
    for name, rows in (("00001.abc", "99\n"), ("00002.abc", "7\n"), ("a100000.abc", "30\n")):
        (attempts / name).write_text(rows)
    assert pace_of(str(output)).rows_in_work == 37
    (attempts / "00002.abc").write_text("")
    assert pace_of(str(output)).rows_in_work == 30


def test_one_shard_says_no_speed_and_none_no_time(tmp_path: Path) -> None:
    output = job(tmp_path / "out", 1, seconds=10, rows=500)
    assert (pace_of(str(output)).rate, pace_of(str(output)).last_sign) == (None, BEGAN)
    (output / "_vqbeam" / "stats" / "00000.json").unlink()
    assert (pace_of(str(output)).last_sign, pace_of(str(output)).seconds_left(1, BEGAN)) == (0.0, None)


def test_stores_tell_times_too(cloud_bucket: str) -> None:
    words = ["--input", str(SAMPLE / "emoji-00000.tar"), "--output", f"{cloud_bucket}/out", "--limit", "6"]
    assert main(["encode", *words, "--rows_per_shard", "2"]) == 0
    pace = pace_of(f"{cloud_bucket}/out")
    assert pace.last_sign > BEGAN
    assert pace.shard_rows == 2
