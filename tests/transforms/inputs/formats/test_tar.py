"""Tars that break off, are corrupt, or are none: what came before is kept, and no silence hides the rest."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest

from tests.support.make_inputs import pairs, tar_of
from tests.support.read_inputs import column, errors, read
from transforms.inputs.formats.tar import content, members


def test_members_come_with_their_content_in_order() -> None:
    stream = io.BytesIO(tar_of([("a.jpg", b"x" * 600), ("__meta__", b"m"), ("d/b.txt", b"")]))
    assert [(member.name, content(stream, member)) for member in members(stream)] == [
        ("a.jpg", b"x" * 600),
        ("d/b.txt", b""),
    ]


@pytest.mark.parametrize("packed", [False, True], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("rows_per_shard", [3, 1000])
def test_a_tar_cut_inside_a_member_keeps_what_came_before(tmp_path: Path, packed: bool, rows_per_shard: int) -> None:
    whole = tar_of(pairs(20))
    name = tmp_path / ("a.tar.gz" if packed else "a.tar")
    data = gzip.compress(whole)[:-300] if packed else whole[: 10 * 2560 + 600]
    name.write_bytes(data)
    rows = read(name, rows_per_shard=rows_per_shard)
    assert errors(rows)[-1] == "broken_archive"
    assert column(rows, "key")[:-1] == [f"{number:05d}" for number in range(len(rows) - 1)]
    assert set(errors(rows)[:-1]) == {None}
    if not packed:
        assert rows[-1]["key"] == "a-000000010"
        assert "00010.jpg" in rows[-1]["error_message"]


@pytest.mark.parametrize("rows_per_shard", [3, 1000])
def test_a_corrupt_header_ends_the_tar_with_one_rejected_row(tmp_path: Path, rows_per_shard: int) -> None:
    data = bytearray(tar_of(pairs(20)))
    data[10 * 2560 : 10 * 2560 + 512] = b"\x55" * 512
    (tmp_path / "a.tar").write_bytes(data)
    rows = read(tmp_path / "a.tar", rows_per_shard=rows_per_shard)
    assert errors(rows) == [None] * 10 + ["broken_archive"]
    assert f"byte {10 * 2560}" in rows[-1]["error_message"]


def test_a_tar_without_its_end_is_whole_where_its_last_sample_is(tmp_path: Path) -> None:
    whole = tar_of(pairs(5))
    (tmp_path / "a.tar").write_bytes(whole[: 5 * 2560])
    assert errors(read(tmp_path / "a.tar", rows_per_shard=2)) == [None] * 5
    (tmp_path / "a.tar").write_bytes(whole[: 5 * 2560 - 1024])
    for rows_per_shard in (2, 100):
        rows = read(tmp_path / "a.tar", rows_per_shard=rows_per_shard)
        assert errors(rows) == [None] * 4 + ["broken_archive"]
    assert "no end" in rows[-1]["error_message"]


@pytest.mark.parametrize(
    "data", [b"", b"<html>not a tar</html>" * 100, gzip.compress(b"")], ids=["empty", "HTML", "gzip of nothing"]
)
def test_a_file_that_is_no_tar_is_one_rejected_row(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(pairs(2)))
    (tmp_path / "b.tar").write_bytes(data)
    assert errors(read(tmp_path)) == [None, None, "broken_archive"]


def test_an_empty_tar_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([]))
    assert read(tmp_path / "a.tar") == []
