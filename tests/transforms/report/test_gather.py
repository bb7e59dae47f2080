"""What a report says of folders made by hand: counts, statistics, what is sampled, and how much is read for it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import CheckpointError
from models.image_tokenizer import ImageTokenizer
from tests.support.report_folders import BEGAN, write_folder
from transforms import storage
from transforms.errors import UsageError
from transforms.ledger.plan import load_plan
from transforms.report.drawn import SHARDS
from transforms.report.gather import Asked, Report, gather
from transforms.report.rejects import EACH
from transforms.report.speed import MARKS


def no_model(made: Mapping[str, Any]) -> ImageTokenizer:
    raise CheckpointError(f"{made['model_source']} is not there")


def report_on(folder: Path, samples: int = 4, seed: int = 0) -> Report:
    plan = load_plan(str(folder))
    assert plan is not None
    return gather(str(folder), plan, Asked(str(folder), samples, seed, no_model))


def row(key: str, error: str = "broken_image") -> dict[str, str]:
    return {"key": key, "uri": f"/in/{key}", "stage": "decode", "error": error, "message": f"{key} is cut short"}


def keys(report: Report) -> list[str]:
    return [card.key for section in report.sections for card in section.cards]


def test_the_numbers_of_ten_rows(tmp_path: Path) -> None:
    found = report_on(write_folder(tmp_path / "out", 1, 10, bad={0: [row("x"), row("y", "empty_image")]}, filtered=3))
    totals = found.totals
    assert (totals.rows_read, totals.rows_written, totals.rows_rejected, totals.rows_filtered) == (15, 10, 2, 3)
    assert {code: [one["key"] for one in rows] for code, rows in found.rejects.examples.items()} == {
        "broken_image": ["x"],
        "empty_image": ["y"],
    }
    assert found.statistics.rows == 10
    assert found.statistics.sizes["read"] == {(20 + 10 * i, 40): 2 for i in range(5)}
    assert Counter(np.concatenate(found.statistics.letters).tolist()) == {len("a thing numbered 0"): 9}
    assert Counter(np.concatenate(found.statistics.words).tolist()) == {4: 9}
    assert found.statistics.codes[""].tolist() == [5] * 8 + [0] * 24
    assert found.totals.codes_used == 8


def test_speed_is_that_of_the_marks(tmp_path: Path) -> None:
    speed = report_on(write_folder(tmp_path / "out", 6, 10)).speed
    assert speed is not None
    assert (speed.times[0], speed.times[-1]) == (BEGAN, BEGAN + 60)
    np.testing.assert_allclose(speed.whole, 1.0)  # ten rows in ten seconds
    for stage, rate in (("read", 10.0), ("decode", 5.0), ("model", 1.25), ("write", 20.0)):
        np.testing.assert_allclose(speed.stages[stage], rate)


def test_a_break_between_two_runs_is_seen(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "out", 2, 10)
    later = BEGAN + 100
    os.utime(folder / "_vqbeam" / "stats" / "00001.json", (later, later))
    speed = report_on(folder).speed
    assert speed is not None
    assert speed.whole.max() == pytest.approx(1.0, rel=0.3)
    assert (speed.whole[2:-2] == 0).all()


def test_the_same_seed_shows_the_same_rows_and_another_one_others(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "out", 5, 20)
    first = keys(report_on(folder))
    assert len(first) == 4
    assert keys(report_on(folder)) == first
    assert keys(report_on(folder, seed=1)) != first


def test_each_row_is_as_likely_to_be_shown_as_any_other(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "out", 4, 10)
    shown = Counter(key for seed in range(60) for key in keys(report_on(folder, 4, seed)))
    assert len(shown) == 40
    assert max(shown.values()) < 5 * 60 * 4 / 40


def test_of_many_shards_some_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {shard: [row(f"b{shard}_{i}") for i in range(9)] for shard in range(0, 400, 2)}
    folder = write_folder(tmp_path / "out", 400, 40, bad=bad)
    opened: Counter[str] = Counter()
    real_open, real_read = storage.open_read, storage.read_bytes

    def noted(uri: str) -> str:
        opened[Path(uri).parent.name] += 1
        return uri

    monkeypatch.setattr(storage, "open_read", lambda uri, *args: real_open(noted(uri), *args))
    monkeypatch.setattr(storage, "read_bytes", lambda uri, *args, **more: real_read(noted(uri), *args, **more))
    found = report_on(folder)
    assert found.totals.rows_written == 16_000, "all marks are added up"
    assert found.totals.rows_rejected == 1800
    assert len(found.shards) == SHARDS
    assert found.statistics.rows == 40 * SHARDS
    assert opened["errors"] <= 400 + 2, "one look at the end of each list, and few of them read"
    assert len(found.rejects.examples["broken_image"]) == EACH
    assert found.speed is not None
    assert (found.speed.read, found.speed.marks) == (MARKS, 400)
    assert found.speed.whole.mean() == pytest.approx(4.0, rel=0.05), "those that were read stand for all"
    looked = {card.linked for section in found.sections for card in section.cards}
    assert looked <= {f"data/{shard:05d}.parquet" for shard in found.shards}


def test_of_large_shards_some_row_groups_are_read(tmp_path: Path) -> None:
    found = report_on(write_folder(tmp_path / "out", 1, 100_000, group_rows=1000))
    assert found.statistics.rows == 65_000
    assert found.totals.rows_written == 100_000


def test_a_lost_table_and_a_model_that_is_gone_are_told(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "out", 2, 10)
    (folder / "data" / "00001.parquet").unlink()
    found = report_on(folder)
    told = "\n".join(found.problems)
    assert "00001.parquet" in told
    assert "/nowhere/model is not there" in told
    assert "originals were not found, such as one: /nowhere/images.parquet is gone" in told
    assert len(keys(found)) == 4


@pytest.mark.parametrize("place", [0.0, 0.3, 1.0])
def test_a_damaged_table_is_told(tmp_path: Path, place: float) -> None:
    folder = write_folder(tmp_path / "out", 2, 1000)
    table = folder / "data" / "00001.parquet"
    data = table.read_bytes()
    start = int(place * (len(data) - 64))
    table.write_bytes(data[:start] + b"?" * 64 + data[start + 64 :])
    found = report_on(folder)
    assert "data/00001.parquet is damaged" in "\n".join(found.problems)
    assert found.statistics.rows == 1000, "the other table is looked at"


def test_a_job_without_a_shard_has_no_report(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "out", 1, 10)
    (folder / "_vqbeam" / "stats" / "00000.json").unlink()
    with pytest.raises(UsageError, match="no shard is done yet"):
        report_on(folder)
