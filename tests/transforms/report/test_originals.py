"""Which rows of an input are read to find an image again."""

from __future__ import annotations

import pytest

from transforms.inputs.request import InputSchema
from transforms.ledger.types import Slice, Source
from transforms.report.originals import cut

SCHEMA = InputSchema(kind="images")


def source(name: str, input_format: str, rows: int | None = None) -> Source:
    return Source(f"/in/{name}", input_format, 1, "1", rows=rows)


TABLE = source("a.parquet", "parquet", 100)
TEXT = source("a.csv", "csv", 100)
TAR = source("a.tar", "webdataset")
FILES = [Slice(source(f"{number}.png", "files", 1), 0, 1) for number in range(5)]


def ranges(slices: list[Slice], first: int, stop: int) -> list[tuple[str, int, int | None, int]]:
    """The name of each source that is read, from and to where, and how many rows come before the first."""
    return [
        (part.source.uri.rpartition("/")[2], part.start, part.stop, before)
        for part, before in cut(slices, first, stop, SCHEMA)
    ]


def test_a_table_is_read_where_the_rows_are() -> None:
    assert ranges([Slice(TABLE, 10, 40), Slice(TABLE, 60, 90)], 25, 33) == [
        ("a.parquet", 35, 40, 0),
        ("a.parquet", 60, 63, 0),
    ]


def test_a_tar_whose_samples_nobody_counted_is_read_where_the_rows_are() -> None:
    assert ranges([Slice(TAR, 50, None)], 7, 9) == [("a.tar", 57, 59, 0)]


def test_a_text_table_is_read_from_the_offset_of_its_slice() -> None:
    assert ranges([Slice(TEXT, 40, 80, offset=1234)], 7, 9) == [("a.csv", 40, 49, 7)]


@pytest.mark.parametrize(("first", "stop", "names"), [(1, 2, ["1.png"]), (3, 9, ["3.png", "4.png"]), (7, 9, [])])
def test_of_files_those_are_read_that_the_rows_are(first: int, stop: int, names: list[str]) -> None:
    assert [name for name, *_ in ranges(FILES, first, stop)] == names
