"""Names of shards sort as their numbers do, however many there are, and tell the number again."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.shard_runs import plan_of, resources, run_shard, shard_case
from tests.transforms.ledger.test_totals import put_mark
from transforms.errors import UsageError
from transforms.ledger import plan as stored_plan
from transforms.ledger.marks import listed_marks
from transforms.ledger.plan import load_plan, store_segment
from transforms.ledger.remove import remove_shard, shard_of
from transforms.ledger.stored_shards import load_shard
from transforms.ledger.totals import pending_shards, total_of
from transforms.ledger.types import SHARD, shard_name, shard_number
from transforms.ledger.verify import found_problems

NUMBERS = (0, 7, 99_998, 99_999, 100_000, 100_001, 999_999, 1_000_000, 9_999_999, 10_000_000, 123_456_789)
LAST_OF_FIVE = 99_999


def test_names_sort_as_numbers_do_and_tell_them_again() -> None:
    names = [*map(shard_name, NUMBERS)]
    assert names == sorted(names)
    assert names[:5] == ["00000", "00007", "99998", "99999", "a100000"]
    assert [*map(shard_number, names)] == [*NUMBERS]
    assert all(re.fullmatch(SHARD, name) for name in names)


@pytest.mark.parametrize("name", ["100000", "a10000", "a0100000", "b100000", "7", "0000a", "", "a"])
def test_other_names_are_of_no_shard(name: str) -> None:
    assert not re.fullmatch(SHARD, name)
    with pytest.raises(ValueError, match=r"names no shard|invalid literal"):
        shard_number(name)


def test_marks_are_listed_and_added_up_in_order(tmp_path: Path) -> None:
    for shard in NUMBERS[1:7]:
        put_mark(tmp_path, shard, rows_written=9, rows_rejected=1, errors={"broken_image": 1})
    (tmp_path / "_vqbeam" / "stats" / "a0000001.json").write_text("a file of the user's")
    assert [mark.shard for mark in listed_marks(str(tmp_path))] == [*NUMBERS[1:7]]
    assert total_of(str(tmp_path)).shards_with_rejected == [*NUMBERS[1:7]]
    assert len(pending_shards(str(tmp_path), 1_000_000)) == 1_000_000 - 6


@pytest.mark.parametrize("layout", ["tokens", "files", "webdataset"])
def test_shards_past_five_digits_are_done_checked_and_removed(layout: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    case = shard_case(tmp_path, layout, str(output))
    plan = load_plan(case.output)
    assert plan is not None
    many = [replace(case.shards[0], index=index) for index in range(1, LAST_OF_FIVE + 3)]
    store_segment(case.output, plan, many)
    with resources() as owned:
        for index in (LAST_OF_FIVE, LAST_OF_FIVE + 1):
            assert run_shard(load_shard(case.output, index), case.job, owned).status == "done"
    files = sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())
    made = [name for name in files if "_vqbeam/shards" not in name and name != "_vqbeam/plan.json"]
    assert [shard_of(name) for name in made if name.startswith("_vqbeam/stats")] == [LAST_OF_FIVE, LAST_OF_FIVE + 1]
    main = case.job.work.main
    tables = [name for name in made if re.fullmatch(rf"{main.folder}/[^/]+", name)]
    assert tables == [f"{main.folder}/{name}.{main.suffix}" for name in ("99999", "a100000")]
    assert {shard_of(name) for name in made} == {LAST_OF_FIVE, LAST_OF_FIVE + 1}
    grown = load_plan(case.output)
    assert grown is not None
    assert grown.shards == LAST_OF_FIVE + 3
    lines = [line for _, line in found_problems(case.output, grown, (main.folder,), lambda done: None)]
    assert "shard a100001 is not done" in lines
    assert all(line.endswith("is not done") for line in lines)
    assert len(lines) == grown.shards - 2
    remove_shard(case.output, (main.folder, "images"), LAST_OF_FIVE + 1)
    left = [str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()]
    assert {shard_of(name) for name in left} - {None} == {LAST_OF_FIVE}


def test_a_plan_of_an_earlier_version_with_other_names_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = shard_case(tmp_path, "tokens", str(tmp_path / "in_order"), rows=4, rows_per_shard=1)
    monkeypatch.setattr(stored_plan, "FIVE_DIGITS", 3)
    with pytest.raises(UsageError, match="earlier version of vqbeam, which gave shards past 99,999 other names"):
        load_plan(case.output)
    stored = store_segment(str(tmp_path / "new"), plan_of(case.job, case.job.schema), case.shards)
    assert load_plan(str(tmp_path / "new")) == stored
