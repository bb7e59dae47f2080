"""Lists and sets of very many files, which hold little of each."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from transforms import storage
from transforms.inputs import file_list, plan, uri_set
from transforms.inputs.file_list import FileList, Found
from transforms.inputs.formats.format import Piece
from transforms.inputs.uri_set import UriSet, UriWalk
from transforms.ledger.types import Slice


def some_files(count: int) -> list[Found]:
    return [
        Found(
            storage.FileInfo(f"/in/{i // 7}/ü {i:05d}\n.jpg", i * 31, f"{1764456000 + i}.5", "" if i % 2 else "x"),
            "/in",
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 4, 5, 8, 23])
def test_a_list_gives_the_files_that_it_was_given(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_list, "BLOCK", 4)
    files = some_files(count)
    packed = FileList(files)
    assert (len(packed), list(packed), packed[1:-1]) == (count, files, files[1:-1])
    assert [packed[i] for i in reversed(range(count))] == files[::-1]
    assert list(zip(packed, packed, strict=True)) == list(zip(files, files, strict=True))
    with pytest.raises(IndexError):
        packed[count]
    assert list(packed.drain()) == files
    assert list(packed) == []


def test_a_list_knows_whether_it_is_sorted() -> None:
    files = some_files(3)
    assert FileList(files).is_sorted
    assert not FileList(files[::-1]).is_sorted


def test_a_list_takes_few_bytes_a_file() -> None:
    count = 50_000
    made = (
        Found(
            storage.FileInfo(f"/in/{i // 1000}/IMG_{i:09d}.jpg", 50_000 + i * 7919 % 90_000, f"1764456000.{i:07d}"),
            "/in",
        )
        for i in range(count)
    )
    tracemalloc.start()
    files = FileList(made)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(files) == count
    assert held / count < 20


@pytest.mark.parametrize("walks", [0, 8])
@pytest.mark.parametrize("kind", [UriSet, UriWalk])
def test_a_set_answers_in_any_order(kind: type, walks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uri_set, "MOST_WALKS", walks)
    pairs = [(f"/in/{i:02d}", f"{i} v") for i in range(0, 20, 2)]
    known = kind(pairs) if kind is UriSet else kind(lambda: pairs)
    for order in (range(20), reversed(range(20)), [3, 4, 4, 19, 0, 18, 2]):
        for i in order:
            uri, there = f"/in/{i:02d}", i % 2 == 0
            assert ((uri in known), known.has_changed(uri, f"{i} v"), known.has_changed(uri, "w")) == (
                there,
                False,
                there,
            )


def test_a_walk_along_sorted_names_reads_them_once() -> None:
    starts = 0

    def pairs() -> Iterator[tuple[str, str]]:
        nonlocal starts
        starts += 1
        yield from ((f"{i:03d}", "v") for i in range(100))

    known = UriWalk(pairs)
    assert sum(f"{i:03d}" in known for i in range(0, 200, 3)) == 34
    assert starts == 1


def test_a_shard_has_few_pieces_however_many_rows_it_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MOST_PIECES", 10)
    pieces = [Piece(Slice(found.source("files", 1), 0, 1), 1) for found in some_files(25)]
    shards = plan.make_shards(pieces, 1_000_000)
    assert [len(shard.slices) for shard in shards] == [10, 10, 5]
    assert [part for shard in shards for part in shard.slices] == [piece.slice for piece in pieces]
