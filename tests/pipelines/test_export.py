"""`vqbeam export`: shuffled shards of equal size, the same for any input order, without loss, also after a stop."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.export
import transforms.inputs.sorted_runs
from tests.support.exports import ROWS, SPLIT, export, hashes, numbers_of, row, rows_of, write
from tests.support.real_runs import PATIENCE, kill_at_work, start
from tests.support.run_command import run
from transforms.outputs.layout import TOKEN_LAYOUTS
from transforms.work.export import Gather, Sort
from vqbeam import TokenDataset, UsageError

WORKERS = ("--workers", "2", "--direct_running_mode", "multi_threading")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several sorted tables and ranges even of few rows."""
    monkeypatch.setattr(pipelines.export, "SORTED_ROWS", 40)
    monkeypatch.setattr(transforms.inputs.sorted_runs, "ROWS_PLANNED", 30)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tokens") / "in", list(range(ROWS)), 34)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    """An export in two splits."""
    output = tmp_path_factory.mktemp("export") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.export, "SORTED_ROWS", 40)
        result = export(source, output, *SPLIT)
    assert result.code == 0, result.err
    return output


def test_shards_are_equal_but_the_last_and_hold_each_row_once_as_it_was(source: Path, tmp_path: Path) -> None:
    result = export(source, tmp_path / "out")

    assert result.code == 0, result.err
    assert "rows       100 read = 100 written + 0 rejected + 0 filtered" in result.out
    shards = rows_of(tmp_path / "out")
    assert [len(shard) for shard in shards] == [30, 30, 30, 10]
    numbers = numbers_of(shards)
    assert sorted(numbers) == list(range(ROWS))
    moved = np.abs(np.array(numbers) - np.arange(ROWS))
    assert 25 < moved.mean() < 42, "a third of the rows is the mean of a real shuffle"
    for shard in shards:
        assert all(found == row(int(found["key"].removeprefix("img."))) for found in shard)
    assert pq.read_schema(tmp_path / "out" / "data" / "00000.parquet").field("encoding").type == pa.list_(
        pa.uint16(), 6
    )
    assert run("verify", tmp_path / "out").code == 0


def test_another_seed_is_another_order(source: Path, tmp_path: Path) -> None:
    orders = []
    for seed in (5, 6):
        assert export(source, tmp_path / str(seed), "--shuffle", seed).code == 0
        orders.append(numbers_of(rows_of(tmp_path / str(seed))))
    assert orders[0] != orders[1]


@pytest.mark.parametrize("layout", TOKEN_LAYOUTS)
def test_the_bytes_are_the_same_for_any_order_of_the_input_and_workers(
    layout: str, source: Path, tmp_path: Path
) -> None:
    numbers = list(range(ROWS))
    random.Random(0).shuffle(numbers)
    other = write(tmp_path / "other", numbers, 11)
    found = []
    for name, rows, workers in (("a", source, ()), ("b", other, WORKERS)):
        result = export(rows, tmp_path / name, "--layout", layout, "--dedup", "encoding", *SPLIT, *workers)
        assert result.code == 0, result.err
        found.append(hashes(tmp_path / name))
    assert len(found[0]) > 5
    assert found[0] == found[1]


def test_a_row_never_changes_sides(split: Path, tmp_path: Path) -> None:
    more = write(tmp_path / "more", list(range(ROWS + 60)), 50)
    result = export(more, tmp_path / "out", *SPLIT, "--shuffle", 9)
    assert result.code == 0, result.err
    before, after = (
        [set(numbers_of(rows_of(home / name))) for name in ("train", "val")] for home in (split, tmp_path / "out")
    )
    assert len(before[0]) + len(before[1]) == ROWS
    assert 8 < len(before[1]) < 32
    assert before[0] <= after[0]
    assert before[1] <= after[1]


def test_without_dedup_equal_rows_all_stay(tmp_path: Path) -> None:
    twice = write(tmp_path / "in", [*range(40), *range(40)], 25)
    assert export(twice, tmp_path / "out").code == 0
    assert [len(shard) for shard in rows_of(tmp_path / "out")] == [30, 30, 20]
    assert sorted(numbers_of(rows_of(tmp_path / "out"))) == sorted([*range(40), *range(40)])


@pytest.mark.parametrize(
    ("column", "groups"),
    [
        ("key", [[n] for n in range(ROWS)]),
        ("encoding", [[2 * n, 2 * n + 1] for n in range(50)]),
        ("site", [*([*range(n, n + 10)] for n in range(0, 90, 10)), *([n] for n in range(90, ROWS))]),
    ],
)
def test_one_row_of_those_that_agree_stays_and_names_the_others(
    column: str, groups: list[list[int]], source: Path, tmp_path: Path
) -> None:
    result = export(source, tmp_path / "out", "--dedup", column, "--rows_per_shard", 8)

    assert result.code == 0, result.err
    shards = rows_of(tmp_path / "out")
    assert {len(shard) for shard in shards[:-1]} <= {8}
    found = []
    for shard in shards:
        for kept in shard:
            found.append(sorted(int(key.removeprefix("img.")) for key in [kept["key"], *kept["duplicates"]]))
    assert sorted(found) == groups
    gone = ROWS - len(groups)
    assert f"rows       100 read = {len(groups)} written + 0 rejected + {gone} filtered" in result.out
    assert result.by_reason("filters") == ({"duplicate": gone} if gone else {})


def test_keys_that_are_there_twice_go(tmp_path: Path) -> None:
    twice = write(tmp_path / "in", [*range(40), *range(20)], 25)
    result = export(twice, tmp_path / "out", "--dedup", "key", *SPLIT)
    assert result.code == 0, result.err
    both = rows_of(tmp_path / "out" / "train") + rows_of(tmp_path / "out" / "val")
    assert sorted(numbers_of(both)) == list(range(40))


class Killed(RuntimeError):
    """Ends the shards of one split."""


@pytest.mark.parametrize("stage", ["sort", "gather"])
def test_a_run_that_failed_is_finished_with_the_same_bytes(
    stage: str, split: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    work = Gather if stage == "gather" else Sort
    after = work.after

    def ends(self: Any, batches: Iterator[Any]) -> Iterator[Any]:
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        yield from after(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(work, "after", ends)
        assert export(source, tmp_path / "out", *SPLIT).code == 1
    again = export(source, tmp_path / "out", *SPLIT)

    assert again.code == 0, again.err
    assert hashes(tmp_path / "out") == hashes(split)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("layout", "number", "workers"),  # objects that are there: before, during and late in the gathering
    [("parquet", 2, 1), ("parquet", 9, 1), ("parquet", 25, 1), ("npy", 60, 2), ("mds", 20, 2)],
)
def test_a_run_that_is_killed_is_finished_by_the_next(
    layout: str, number: int, workers: int, source: Path, tmp_path: Path
) -> None:
    words = ["export", "--input", str(source), "--rows_per_shard", "4", "--shuffle", "5", "--layout", layout]
    assert run(*words, *SPLIT, output=tmp_path / "quiet").code == 0
    output = tmp_path / "out"
    flags = ("--workers", str(workers))
    kill_at_work([*words, *SPLIT, "--output", str(output)], tmp_path / "temp", output, number, *flags)
    again = start([*words, *SPLIT, "--output", str(output)], tmp_path / "temp")  # this process sorts smaller tables
    _, errors = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, errors
    assert hashes(output) == hashes(tmp_path / "quiet")
    assert run("verify", output / "train").code == 0


def test_nothing_of_another_job_or_of_the_input_is_touched(source: Path, tmp_path: Path) -> None:
    home = write(tmp_path / "home" / "data", list(range(5)), 5).parent
    before = hashes(home)
    taken = export(source, home)
    assert taken.code == 2
    assert "home/data holds files that no plan of vqbeam knows" in taken.err
    for output in (home, home / "data"):
        result = export(home / "data", output, "--overwrite")
        assert result.code == 2, result.err
    assert hashes(home) == before
    assert not (home / "_vqbeam").exists()


def test_a_dry_run_writes_nothing(source: Path, tmp_path: Path) -> None:
    result = export(source, tmp_path / "out", "--dry_run")
    assert result.code == 0, result.err
    assert "files       3" in result.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["status", "verify"])
def test_each_split_is_looked_at_by_itself(command: str, split: Path) -> None:
    found = run(command, split)
    assert (found.code, f"name {split}/train or {split}/val" in found.err) == (2, True), found.err
    assert run(command, split / "val").code == 0


def test_what_is_missing_later_is_done_again(split: Path, source: Path, tmp_path: Path) -> None:
    assert export(source, tmp_path / "out", *SPLIT).code == 0
    assert not (tmp_path / "out" / "_vqbeam" / "sorted" / "data").exists(), "the sorted tables are gone at the end"
    for path in ("data/00001.parquet", "_vqbeam/stats/00001.json"):
        (tmp_path / "out" / "train" / path).unlink()
    result = export(source, tmp_path / "out", *SPLIT)
    assert result.code == 0, result.err
    assert hashes(tmp_path / "out") == hashes(split)


def test_a_finished_export_is_left_as_it_is_and_another_is_refused(split: Path, source: Path) -> None:
    before = hashes(split)
    again = export(source, split, *SPLIT)
    assert again.code == 0, again.err
    assert "Sorted" not in again.err
    other = export(source, split, *SPLIT, "--shuffle", 6)
    assert other.code == 2
    assert "shuffle: the folder has 5, this command asks for 6" in other.err
    assert hashes(split) == before


def test_splits_inside_the_input_are_no_input(tmp_path: Path) -> None:
    source = write(tmp_path / "in", list(range(40)), 40)
    for _ in range(2):
        again = export(source, source / "out", *SPLIT)
        assert again.code == 0, again.err
        assert "rows       40 read = 40 written" in again.out
    export(source, tmp_path / "other").check_refused(f"{source}/out/train, {source}/out/val. Give a pattern")


def test_overwriting_starts_over(source: Path, tmp_path: Path) -> None:
    assert export(source, tmp_path / "out").code == 0
    result = export(source, tmp_path / "out", "--overwrite", "--layout", "webdataset")
    assert result.code == 0, result.err
    assert not (tmp_path / "out" / "data").exists()
    assert len(list((tmp_path / "out" / "tars").iterdir())) == 4


def test_splits_are_datasets_and_feed_a_training(split: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")  # not beside the lowest versions: see setup.py
    datasets.disable_progress_bars()
    loaded = datasets.load_dataset(str(split / "train"), cache_dir=str(tmp_path))["train"]
    both = datasets.load_dataset(str(split), cache_dir=str(tmp_path))
    assert both.shape == {"train": (loaded.num_rows, 4), "val": (ROWS - loaded.num_rows, 4)}
    assert both["train"]["key"][:] == loaded["key"][:]
    expected = [found["key"] for shard in rows_of(split / "train") for found in shard]
    assert loaded["key"][:] == expected
    assert [found["key"] for found in TokenDataset(split / "train")] == expected
    with pytest.raises(UsageError, match="holds an export in splits"):
        TokenDataset(split)


def test_the_tables_are_as_dalle_mini_reads_them(split: Path) -> None:
    """Its data.py takes the columns `encoding`, a list of integers a row, and `caption`, a string."""
    table = pq.read_table(split / "train" / "data" / "00000.parquet")
    frame = table.to_pandas()
    assert np.asarray(frame["encoding"].tolist()).shape == (table.num_rows, 6)
    assert frame["caption"].dropna().map(type).eq(str).all()


def test_rows_without_their_codes_are_rejected_and_counted(tmp_path: Path) -> None:
    source = write(tmp_path / "in", list(range(20)), 20)
    codes = pa.array([[1] * 6, None, [1, 2]], pa.list_(pa.int64()))
    columns = {"key": ["a", "b", "c"], "caption": ["x"] * 3, "encoding": codes, "site": ["y"] * 3}
    pq.write_table(pa.table(columns), source / "z.parquet")
    result = export(source, tmp_path / "out", "--max_error_rate", 1)
    assert result.code == 0, result.err
    assert "rows       23 read = 21 written + 2 rejected + 0 filtered" in result.out
    assert min(found["key"] for shard in rows_of(tmp_path / "out") for found in shard) == "a"
    (errors,) = (tmp_path / "out" / "_vqbeam" / "sorted" / "_vqbeam" / "errors").iterdir()
    assert [found["key"] for found in pq.read_table(errors).to_pylist()] == ["b", "c"]


def test_one_summary_counts_what_both_jobs_did(tmp_path: Path) -> None:
    source = write(tmp_path / "in", [*range(40), *range(10)], 50)
    codes = pa.array([[1] * 6, None], pa.list_(pa.int64()))
    columns = {"key": ["img.40", "b"], "caption": ["x"] * 2, "encoding": codes, "site": ["y"] * 2}
    pq.write_table(pa.table(columns), source / "z.parquet")
    words = (source, tmp_path / "out", "--dedup", "key", *SPLIT)
    for headline in ("Done: 2 shards", "Done already: 2 shards"):
        result = export(*words)
        assert result.code == 0, result.err
        lines = result.out.splitlines()
        counts = [pq.read_metadata(path).num_rows for path in sorted((tmp_path / "out").glob("*/data/*"))]
        assert lines[0] == headline
        assert lines[1:4] == [
            "  rows       52 read = 41 written + 1 rejected + 10 filtered",
            "  rejected   1 missing_codes",
            "  filtered   10 duplicate",
        ]
        assert f"  train      {counts[0]} rows in 1 shard" in lines
        assert f"  val        {counts[1]} rows in 1 shard" in lines
        assert "images" not in result.out + result.err
        assert result.out.count("rows       ") == 1


def test_the_card_above_the_splits_is_ours_or_the_users(source: Path, tmp_path: Path) -> None:
    card = tmp_path / "out" / "README.md"
    assert export(source, tmp_path / "out", "--split", "a-b=0.5,c=0.5").code == 0
    assert "- split: a_b\n    path: a-b/data/*.parquet\n  - split: c\n" in card.read_text()
    assert export(source, tmp_path / "out", "--split", "a-b=0.5,d=0.5", "--overwrite").code == 0
    assert "split: c" not in card.read_text()
    card.write_text("mine")
    result = export(source, tmp_path / "out", "--split", "a-b=0.5,d=0.5", "--overwrite", "--layout", "webdataset")
    assert result.code == 0, result.err
    assert "README.md stays as it is" in result.err
    assert card.read_text() == "mine"
