"""A slice of a tar that begins where an earlier one ended has the rows of one that is sought from the beginning."""

from __future__ import annotations

import io
import tarfile
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from tarfile import TarInfo
from typing import Any

import pytest

from tests.support.make_inputs import Members, pairs, tar_of
from tests.support.read_inputs import plan
from transforms.inputs.fetch import MAX_IMAGE_BYTES
from transforms.inputs.formats import read_slices, tar, tar_samples
from transforms.inputs.formats.tar_places import MAX_PLACES, MAX_TARS, Place, Places
from transforms.ledger.types import Slice

NAMED_ALIKE: Members = [
    (f"{name}.{number}.{ending}", f"{name} {number} {ending}")
    for name in ("cat", "dog")
    for number in range(4)
    for ending in ("jpg", "txt")
]
ODD: Members = [
    *pairs(3),
    *NAMED_ALIKE,
    ("no_ending", "left out"),
    *((f"{'long/' * 60}{number}.jpg", b"x") for number in range(3)),
    ("last.jpg", b"y"),
    ("last.txt", b"the last"),
]


def with_global_headers(members: Members) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as archive:
        for name, content in members:
            data = content.encode() if isinstance(content, str) else content
            info = TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


TARS = {
    "odd": (tar_of(ODD), True),
    "broken in a sample": (tar_of(ODD)[:-13_000], True),
    "joined": (tar_of(pairs(6)) + tar_of([(f"b{name}", data) for name, data in pairs(6)]), True),
    "global headers": (with_global_headers(ODD), False),
}


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes at which tars were begun to be read."""
    found: list[int] = []
    real = tar.members

    def members(stream: Any, read_on: bool, progress: tar.Progress) -> Iterator[TarInfo]:
        found.append(progress.begin)
        return real(stream, read_on, progress)

    monkeypatch.setattr(tar, "members", members)
    return found


def rows_of(part: Slice, schema: Any) -> tuple[list[Any], Counter[str]]:
    notices: Counter[str] = Counter()
    return [row for one in read_slices([part], schema, MAX_IMAGE_BYTES, notices) for row in one.to_pylist()], notices


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("name", TARS)
def test_slices_have_the_same_rows_in_any_order(
    name: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: list[int]
) -> None:
    content, has_places = TARS[name]
    (tmp_path / "a.tar").write_bytes(content)
    planned = plan(tmp_path / "a.tar")
    source, count = planned.pieces[0].slice.source, 16
    parts = [Slice(source, start, start + rows) for start in range(0, count, rows)] + [Slice(source, count)]
    alone = []
    for part in parts:
        monkeypatch.setattr(tar_samples.PLACES, "_known", OrderedDict())
        alone.append(rows_of(part, planned.schema))
    assert sum(len(found) for found, _ in alone) >= 12
    assert not any(begun)
    assert [rows_of(part, planned.schema) for part in parts] == alone
    assert any(begun) == has_places
    backwards = [rows_of(part, planned.schema) for part in reversed(parts)]
    assert backwards[::-1] == alone


def test_few_places_are_kept() -> None:
    places = Places()
    for number in range(1, MAX_PLACES + 10):
        places.add("a", Place(number, number))
    assert places.nearest("a", MAX_PLACES + 100).number == MAX_PLACES + 9
    assert places.nearest("a", 5) == Place()
    for name in range(MAX_TARS):
        places.add(name, Place(1, 1))
    assert places.nearest("a", MAX_PLACES + 100) == Place()
