"""Keys are counted as a dictionary in memory counts them, however they are spread over shards and files."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.outputs import repeated_keys
from transforms.outputs.repeated_keys import RepeatedKeys, find_repeated_keys

ZEROS = dict.fromkeys(("rows_read", "rows_written", "rows_rejected", "rows_filtered", "missing_captions"), 0)


def write_job(folder: Path, shards: list[list[str]]) -> None:
    """The tables and marks of a job, as far as its keys are read."""
    (folder / "data").mkdir(parents=True)
    (folder / "_vqbeam" / "stats").mkdir(parents=True)
    for number, keys in enumerate(shards):
        path = f"data/{number:05d}.parquet"
        pq.write_table(pa.table({"key": pa.array(keys, pa.string())}), folder / path)
        mark = {**ZEROS, "shard": number, "objects": [{"path": path, "size": 0, "sha256": ""}]}
        (folder / "_vqbeam" / "stats" / f"{number:05d}.json").write_text(json.dumps(mark))


def find(tmp_path: Path, shards: list[list[str]]) -> RepeatedKeys | None:
    """As found, and as a dictionary finds them."""
    write_job(tmp_path / "job", shards)
    (tmp_path / "scratch").mkdir()
    rows = sum(map(len, shards))
    found = find_repeated_keys(str(tmp_path / "job"), range(len(shards)), rows, str(tmp_path / "scratch"))
    counts = Counter(key for keys in shards for key in keys)
    repeated = {key: count for key, count in counts.items() if count > 1}
    if not repeated:
        assert found is None
        return None
    first = next(key for keys in shards for key in keys if key in repeated)
    holding = tuple(number for number, keys in enumerate(shards) if first in keys)
    assert found == RepeatedKeys(len(repeated), sum(repeated.values()), first, holding)
    return found


@pytest.mark.parametrize("rows_sorted", [1, 100, 1 << 21])
@pytest.mark.parametrize("seed", range(3))
def test_random_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_sorted: int, seed: int) -> None:
    monkeypatch.setattr(repeated_keys, "ROWS_SORTED", rows_sorted)
    monkeypatch.setattr(repeated_keys, "ROWS_READ", 50)
    chosen = random.Random(seed)
    keys = ["", "\0", "é", "a" * 5000, *(f"im/{number}" for number in range(10 ** (seed + 1)))]
    find(tmp_path, [chosen.choices(keys, k=chosen.randrange(200)) for _ in range(7)])


@pytest.mark.parametrize("shards", [[], [[]], [[], ["a"]], [["a", "b"], ["c"]]])
def test_none_repeats(tmp_path: Path, shards: list[list[str]]) -> None:
    assert find(tmp_path, shards) is None


def test_keys_whose_first_bits_agree_are_told_apart_by_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = repeated_keys._hashes

    def agreeing(keys: pa.Array) -> object:
        hashes = whole(keys).copy()
        hashes["high"] = 7
        return hashes

    monkeypatch.setattr(repeated_keys, "_hashes", agreeing)
    find(tmp_path, [["a", "b", "c"], ["d", "a", "e"], ["e", "e"]])


def test_a_key_that_all_rows_have_takes_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_keys, "ROWS_SORTED", 1 << 10)
    monkeypatch.setattr(repeated_keys, "MOST_FILES", 64)
    rows = 1 << 19
    write_job(tmp_path / "job", [["same"] * rows])
    tracemalloc.start()
    found = find_repeated_keys(str(tmp_path / "job"), [0], rows, str(tmp_path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == RepeatedKeys(1, rows, "same", (0,))
    assert peak < 10 << 20  # of 20 bytes a row they would be 10 MiB in one file alone
    assert str(found) == "1 key occurs more than once (524,288 rows), such as 'same' in shard 00000"
