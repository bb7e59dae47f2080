"""Every row once, in one order, whoever reads: over ranks, workers and stops."""

from __future__ import annotations

from itertools import chain, zip_longest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from tests.support.small_jobs import dataset, encode_small
from vqbeam import TokenDataset, UsageError

ROWS, LENGTH = 50, 6
KEYS = [f"k{number:02d}" for number in range(ROWS)]


def write_tokens(path: Path, first: int, rows: int, group: int = 4) -> None:
    numbers = range(first, first + rows)
    codes = [[number * 100 + place for place in range(LENGTH)] for number in numbers]
    columns = {
        "key": pa.array([f"k{number:02d}" for number in numbers]),
        "caption": pa.array([None if number % 7 == 0 else f"c {number}" for number in numbers], pa.string()),
        "encoding": pa.array(codes, pa.list_(pa.uint16(), LENGTH)),
        "width": pa.array(numbers, pa.int32()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty rows in three tables, with small row groups."""
    home = tmp_path_factory.mktemp("tokens")
    for name, first, rows in (("a", 0, 21), ("b", 21, 1), ("c", 22, 28)):
        write_tokens(home / f"{name}.parquet", first, rows)
    return home


def made(tokens: Path, **options: Any) -> Any:
    return TokenDataset(tokens, **{"shuffle": True, "seed": 3, "window_rows": 12} | options)


def read(tokens: Path, batch: int, ranks: int, workers: int, state: Any = None, **options: Any) -> list[list[str]]:
    """The keys of each global step: of all ranks, whose loaders have `workers` each."""
    steps: list[list[list[str]]] = []
    for rank in range(ranks):
        rows = made(tokens, batch_size=batch, rank=rank, ranks=ranks, **options)
        if state is not None:
            rows.load_state_dict(state)
        steps.append([found["key"] for found in DataLoader(rows, batch_size=batch, num_workers=workers)])
    return [list(chain.from_iterable(step)) for step in zip_longest(*steps, fillvalue=())]


def test_a_row_is_an_int64_tensor_with_its_words(tokens: Path) -> None:
    rows = list(TokenDataset(tokens, columns=["width"]))
    assert [row["key"] for row in rows] == KEYS
    assert rows[1]["encoding"].dtype == torch.int64
    assert rows[1]["encoding"].tolist() == [100, 101, 102, 103, 104, 105]
    assert (rows[0]["caption"], rows[1]["caption"], rows[1]["width"]) == ("", "c 1", 1)
    assert int(rows[49]["encoding"].max()) == 4905


def test_shuffling_depends_on_seed_and_epoch_alone(tokens: Path) -> None:
    first, second = ([row["key"] for row in made(tokens, seed=seed, epochs=2)] for seed in (3, 4))
    assert sorted(first[:ROWS]) == sorted(first[ROWS:]) == sorted(second[:ROWS]) == KEYS
    assert len({tuple(order) for order in (KEYS, first[:ROWS], first[ROWS:], second[:ROWS], second[ROWS:])}) == 5
    assert first == [row["key"] for row in made(tokens, epochs=2)]
    assert first[:5] == ["k11", "k09", "k22", "k24", "k08"], "the order of a seed is the same for ever"


@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (1, 2), (2, 0), (4, 0), (2, 2)])
def test_the_steps_of_all_ranks_are_the_same_for_any_ranks_and_workers(ranks: int, workers: int, tokens: Path) -> None:
    expected = read(tokens, 8, 1, 0)
    assert sorted(chain.from_iterable(expected)) == KEYS
    assert read(tokens, 8 // ranks, ranks, workers) == expected


@pytest.mark.parametrize("stop", [0, 1, 3, 6, 7])
@pytest.mark.parametrize(("ranks", "after"), [(1, 2), (2, 4), (4, 1)])
def test_nothing_is_lost_or_repeated_across_a_stop_also_with_other_ranks(
    stop: int, ranks: int, after: int, tokens: Path
) -> None:
    whole = read(tokens, 8, 1, 0, epochs=2)
    readers = [made(tokens, epochs=2, batch_size=8 // ranks, rank=r, ranks=ranks) for r in range(ranks)]
    sets = [iter(DataLoader(reader, batch_size=8 // ranks)) for reader in readers]
    before = [list(chain.from_iterable(next(one)["key"] for one in sets)) for _ in range(stop)]
    states = [reader.state_dict() for reader in readers]

    assert {state["rows"] for state in states} == {stop * 8}
    assert before + read(tokens, 8 // after, after, 0, states[-1], epochs=2) == whole
    assert before + read(tokens, 8 // after, after, 0, {"rows": stop * 8}, epochs=2) == whole


@pytest.mark.parametrize("stop", range(0, 27, 2))
@pytest.mark.parametrize("workers", [2, 3])
def test_each_worker_goes_on_from_its_own_state(stop: int, workers: int, tokens: Path, monkeypatch: Any) -> None:
    """As torchdata's StatefulDataLoader has it: a state for each worker, loaded there."""
    seen: list[str] = []
    for worker in range(workers):
        info = SimpleNamespace(id=worker, num_workers=workers)
        monkeypatch.setattr("vqbeam.transforms.training.token_dataset.get_worker_info", lambda info=info: info)
        rows = made(tokens, batch_size=4)
        reader = iter(rows)
        seen += [row["key"] for _, row in zip(range(stop), reader, strict=False)]
        again = made(tokens, batch_size=4)
        state = rows.state_dict()
        again.load_state_dict(state)
        assert again.state_dict() == state
        seen += [row["key"] for row in again]
    assert sorted(seen) == KEYS


def test_workers_that_live_on_begin_the_epoch_that_is_set(tokens: Path) -> None:
    rows = made(tokens, batch_size=4)
    loader = DataLoader(rows, batch_size=4, num_workers=2, persistent_workers=True)
    epochs = []
    for epoch in range(2):
        rows.set_epoch(epoch)
        epochs.append([key for batch in loader for key in batch["key"]])
    assert epochs[0] + epochs[1] == [row["key"] for row in made(tokens, epochs=2)]


def test_states_of_others_are_refused(tokens: Path) -> None:
    state = made(tokens).state_dict()
    with pytest.raises(UsageError, match="another seed"):
        made(tokens, seed=4).load_state_dict(state)
    of_a_worker = {name: value for name, value in state.items() if name != "rows"} | {"worker": 1, "workers": 2}
    with pytest.raises(UsageError, match=r'worker 1 of 2 on rank 0 of 1: load it there, or load {"rows": n}'):
        made(tokens).load_state_dict(of_a_worker)


def test_what_is_no_table_of_tokens_is_refused(tokens: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no Parquet files in"):
        TokenDataset(tmp_path)
    pq.write_table(pa.table({"key": ["a"], "encoding": ["b"]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="holds string, and no lists of codes"):
        TokenDataset(tmp_path)
    with pytest.raises(UsageError, match=r"has no column codes; it has key, caption"):
        TokenDataset(tokens, code_column="codes")
    (tmp_path / "a.parquet").write_bytes(b"PAR")
    with pytest.raises(UsageError, match="no readable Parquet file"):
        TokenDataset(tmp_path)
    with pytest.raises(UsageError, match="rank 2 of 2"):
        TokenDataset(tokens, rank=2, ranks=2)


def test_an_output_folder_is_read_once_it_is_whole(tmp_path: Path, tiny_model: Path) -> None:
    dataset(tmp_path / "in", files=2)
    result = encode_small(tmp_path / "in", tmp_path / "out", tiny_model)
    assert result.code == 0, result.err
    rows = list(TokenDataset(tmp_path / "out"))
    assert [row["key"] for row in rows] == [row["key"] for row in result.rows()]
    np.testing.assert_array_equal([row["encoding"] for row in rows], [row["encoding"] for row in result.rows()])
    (tmp_path / "out" / "_SUCCESS").unlink()
    with pytest.raises(UsageError, match="not finished"):
        TokenDataset(tmp_path / "out")


def test_tables_on_a_store_are_read(tokens: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/tokens/a.parquet", (tokens / "a.parquet").read_bytes())
    assert [row["key"] for row in TokenDataset("memory://tokens")] == KEYS[:21]
