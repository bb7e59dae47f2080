"""The stored plan: create-only segments, read back as they were, and the fingerprint that guards them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from transforms import storage
from transforms.errors import ShardFailed, UsageError
from transforms.ledger.plan import Plan, check_fingerprint, load_plan, segment_of, store_segment
from transforms.ledger.stored_shards import StoredShards, load_shard, rows_of
from transforms.ledger.types import Shard, Slice, Source

PLAN = Plan("encode", {"dtype": "float32", "input": {"format": "parquet"}}, {"batch_size": 4}, {"kind": "images"})


def shards(first: int, count: int, name: str = "a") -> list[Shard]:
    """Two slices each; those of a tar do not know where they end."""
    made = []
    for index in range(first, first + count):
        whole = Source(f"/data/{name}{index}.parquet", "parquet", 1000 + index, "v1", "/data", rows=20)
        made.append(Shard(index, (Slice(whole, 0, 10), Slice(whole, 10, 20, offset=7))))
    return made


def rows(folder: Path, plan: Plan, shards: Iterable[int]) -> list[int]:
    found = rows_of(str(folder), plan, shards)
    assert found is not None
    return found.tolist()


def test_a_plan_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    assert load_plan(str(tmp_path)) is None
    stored = store_segment(str(tmp_path), PLAN, shards(0, 5))
    assert load_plan(str(tmp_path)) == stored
    assert rows(tmp_path, stored, range(5)) == [20] * 5
    assert stored.shards == 5
    assert list(StoredShards(str(tmp_path), stored)) == shards(0, 5)
    assert [*map(StoredShards(str(tmp_path), stored).make, (1, 2))] == shards(0, 5)[1:3]
    assert load_shard(str(tmp_path), 4) == shards(0, 5)[4]
    assert json.loads((tmp_path / "_vqbeam" / "plan.json").read_text())["fingerprint"] == PLAN.fingerprint


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=f"{name} is a file, or in one, and no folder"):
        load_plan(str(tmp_path / name))


def test_the_first_of_two_plans_wins_and_the_other_run_gets_it(tmp_path: Path) -> None:
    first = store_segment(str(tmp_path), PLAN, shards(0, 5))
    second = store_segment(str(tmp_path), replace(PLAN, settings={"batch_size": 64}), shards(0, 2, "b"))
    assert second == first == load_plan(str(tmp_path))
    assert list(StoredShards(str(tmp_path), second)) == shards(0, 5)


def test_segments_come_after_one_another(tmp_path: Path) -> None:
    stored = store_segment(str(tmp_path), PLAN, shards(0, 2))
    stored = store_segment(str(tmp_path), stored, shards(2, 3, "b"))
    assert load_plan(str(tmp_path)) == stored
    assert stored.shards == 5
    assert list(StoredShards(str(tmp_path), stored)) == shards(0, 2) + shards(2, 3, "b")
    assert [*map(StoredShards(str(tmp_path), stored).make, (1, 2))] == shards(0, 2)[1:] + shards(2, 1, "b")
    assert rows(tmp_path, stored, [0, 4]) == [20, 20]


def test_rows_are_not_known_where_a_source_does_not_tell(tmp_path: Path) -> None:
    tar = Shard(0, (Slice(Source("/data/a.tar", "webdataset", 9, "v1"), 0, None),))
    stored = store_segment(str(tmp_path), PLAN, [tar])
    assert rows_of(str(tmp_path), stored, [0]) is None
    assert load_shard(str(tmp_path), 0) == tar


def test_a_source_cut_into_shards_counts_once() -> None:
    source = Source("/data/a.parquet", "parquet", 1000, "v1", rows=30)
    segment = segment_of([Shard(3, (Slice(source, 0, 10),)), Shard(4, (Slice(source, 10, 30),))])
    assert (segment.first_shard, segment.shards, segment.sources, segment.bytes, segment.rows) == (3, 2, 1, 1000, 30)


def test_one_shard_of_many_is_found(tmp_path: Path) -> None:
    source = Source("/data/a.parquet", "parquet", 1, "v1")
    many = [Shard(index, (Slice(source, index, index + 1),)) for index in range(20_000)]
    stored = store_segment(str(tmp_path), PLAN, many)
    assert load_shard(str(tmp_path), 17_777) == many[17_777]
    assert rows(tmp_path, stored, range(0, 20_000, 2)) == [1] * 10_000


def test_what_differs_is_named_and_what_was_left_open_is_not(tmp_path: Path) -> None:
    check_fingerprint("out", PLAN, {"dtype": None, "input": {"format": "parquet"}})
    with pytest.raises(UsageError) as raised:
        check_fingerprint("out", PLAN, {"dtype": "bfloat16", "input": {"format": "csv"}, "seed": 1})
    message = str(raised.value)
    assert "dtype: the folder has 'float32', this command asks for 'bfloat16'" in message
    assert "input.format: the folder has 'parquet', this command asks for 'csv'" in message
    assert "seed: the folder has None, this command asks for 1" in message
    assert "overwrite to start over" in message


def test_a_folder_whose_rows_have_other_columns_is_not_gone_on_with() -> None:
    older = replace(PLAN, fingerprint=dict(PLAN.fingerprint) | {"schema_version": 1})
    check_fingerprint("out", older, {"schema_version": 1})
    for plan in (PLAN, older):
        with pytest.raises(UsageError, match=r"^output: out was begun by another version of vqbeam.*or overwrite"):
            check_fingerprint("out", plan, {"schema_version": 2, "dtype": "bfloat16"})


def test_the_folder_of_another_command_is_named_as_that() -> None:
    with pytest.raises(UsageError, match=r"^output: out belongs to `vqbeam encode`, this is `vqbeam decode`: choose"):
        check_fingerprint("out", PLAN, {"command": "decode", "dtype": "bfloat16"})


def test_a_plan_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("transforms.ledger.plan.PLAN_VERSION", 99)
        store_segment(str(tmp_path), PLAN, shards(0, 1))
    with pytest.raises(UsageError, match="plan version 99, this one reads 1"):
        load_plan(str(tmp_path))


def test_a_damaged_or_strange_plan_is_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    uri = f"{tmp_path}/_vqbeam/shards.parquet"
    storage.put_bytes(b"PAR1 and nothing else", uri)
    with pytest.raises(ShardFailed, match=r"shards\.parquet is damaged"):
        load_plan(str(tmp_path))
    pq.write_table(pa.table({"a": [1]}), uri)
    with pytest.raises(UsageError, match=r"shards\.parquet is no plan of vqbeam"):
        load_plan(str(tmp_path))


def test_a_plan_that_is_gone_is_a_fault_of_the_environment(tmp_path: Path) -> None:
    with pytest.raises(ShardFailed, match="gone, or has no shard 00003"):
        load_shard(str(tmp_path), 3)
    store_segment(str(tmp_path), PLAN, shards(0, 2))
    with pytest.raises(ShardFailed, match="gone, or has no shard 00003"):
        load_shard(str(tmp_path), 3)


def test_a_plan_from_before_image_sizes_could_be_asked_for_has_the_models_own() -> None:
    older = replace(PLAN, command="decode")
    check_fingerprint("out", older, {"image_size": 0})
    with pytest.raises(UsageError, match="image_size: the folder has 0, this command asks for 384"):
        check_fingerprint("out", older, {"image_size": 384})
