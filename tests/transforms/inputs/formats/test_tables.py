"""Text tables: csv, tsv and jsonl, plain and gzipped, with the lines that people really write."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.make_inputs import folder
from tests.support.read_inputs import column, errors, plan, read, read_plan
from transforms.errors import UsageError
from transforms.inputs.plan import plan_sources
from transforms.inputs.request import InputRequest


def jsonl(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_a_csv_of_paths_and_captions(tmp_path: Path) -> None:
    text = 'file_name,caption,note\na.jpg,"one, two",x\nd/b.jpg,"line\nbreak ""quoted""",\n'
    rows = read(folder(tmp_path, {"t.csv": text}) / "t.csv")
    assert column(rows, "caption") == ["one, two", 'line\nbreak "quoted"']
    assert column(rows, "image_uri") == [f"{tmp_path}/a.jpg", f"{tmp_path}/d/b.jpg"]
    assert column(rows, "key") == ["t-000000000", "t-000000001"]
    assert column(rows, "pass:note") == ["x", ""]
    assert rows[1]["uri"] == f"{tmp_path}/t.csv#1"


@pytest.mark.parametrize("name", ["t.csv.gz", "t.csv"])
def test_gzip_is_told_from_the_bytes(tmp_path: Path, name: str) -> None:
    packed = gzip.compress(b"path,caption\n" + b"a.jpg,x\n" * 9)
    rows = read(folder(tmp_path, {name: packed}) / name, rows_per_shard=2)
    assert column(rows, "key") == [f"t-{row:09d}" for row in range(9)]


def test_tabs_byte_order_marks_and_windows_line_ends(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbfimage_path\ttext\r\na.jpg\tone, two\r\n\r\nb.jpg\t\r\n"
    rows = read(folder(tmp_path, {"t.tsv": data}) / "t.tsv")
    assert column(rows, "image_uri") == [f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"]
    assert column(rows, "caption") == ["one, two", None]


def test_types_of_json_fields_are_those_of_the_whole_table(tmp_path: Path) -> None:
    first = {"path": "a.jpg", "n": 1, "x": 1, "ok": True, "mixed": 1, "long": 2**70, "deep": {"a": [1]}, "tags": ["a"]}
    second = {"path": "b.jpg", "n": -5, "x": 0.5, "ok": None, "mixed": "s", "long": 1, "deep": None, "tags": []}
    planned = plan(folder(tmp_path, {"t.jsonl": jsonl(first, second)}) / "t.jsonl")
    assert {field.name: str(field.type) for field in planned.schema.passthrough} == {
        "n": "int64", "x": "double", "ok": "bool", "mixed": "string", "long": "string", "deep": "string",
        "tags": "list<item: string>",
    }  # fmt: skip
    rows = read_plan(planned)
    assert errors(rows) == [None, None]
    assert column(rows, "pass:mixed") == ["1", "s"]
    assert column(rows, "pass:long") == [str(2**70), "1"]
    assert column(rows, "pass:deep") == ['{"a": [1]}', None]


def test_a_whole_number_too_large_for_a_double_is_not_rounded(tmp_path: Path) -> None:
    path = folder(tmp_path, {"t.jsonl": jsonl({"path": "a", "n": 2**60 + 1}, {"path": "b", "n": 0.5})}) / "t.jsonl"
    assert column(read(path), "pass:n") == [str(2**60 + 1), "0.5"]


def test_fields_may_be_missing_from_some_lines(tmp_path: Path) -> None:
    path = (
        folder(tmp_path, {"t.jsonl": jsonl({"path": "a.jpg"}, {"path": "b.jpg", "caption": "b", "n": 3})}) / "t.jsonl"
    )
    rows = read(path)
    assert [(row["caption"], row["pass:n"]) for row in rows] == [(None, None), ("b", 3)]


def test_captions_in_lists(tmp_path: Path) -> None:
    records = [{"path": "a", "captions": ["x", "y"]}, {"path": "b", "captions": "z"}, {"path": "c", "captions": []}]
    path = folder(tmp_path, {"t.jsonl": jsonl(*records)}) / "t.jsonl"
    assert column(read(path), "caption") == [["x", "y"], ["z"], None]


@pytest.mark.parametrize("rows_per_shard", [1, 2, 100])
def test_lines_that_cannot_be_parsed_are_rejected_in_their_place(tmp_path: Path, rows_per_shard: int) -> None:
    broken = [b"{oops", b"[1, 2]", b'{"path": "\xff"}', b"", b'{"path": "\\ud800"}']
    lines = [b'{"path": "0"}', *broken, b'{"path": 7}', b"{}"]
    path = folder(tmp_path, {"t.jsonl": b"\n".join([*lines, b'{"path": "last"}'])}) / "t.jsonl"
    rows = read(path, rows_per_shard=rows_per_shard, image_column="path")
    assert errors(rows) == [None, *["broken_record"] * 4, "schema_mismatch", "missing_image", None]
    assert column(rows, "key") == [f"t-{row:09d}" for row in range(8)]


@pytest.mark.parametrize("rows_per_shard", [1, 2, 100])
def test_csv_lines_that_cannot_be_parsed_are_rejected_in_their_place(tmp_path: Path, rows_per_shard: int) -> None:
    data = (
        b'path,caption\n0.jpg,ok\n1.jpg\n2.jpg,a,b\n3.jpg,"x"y\n4.jpg,\xff\n,none\n6.jpg,ok\n7.jpg,"never closed\nend'
    )
    rows = read(folder(tmp_path, {"t.csv": data}) / "t.csv", rows_per_shard=rows_per_shard)
    assert errors(rows) == [None, *["broken_record"] * 4, "missing_image", None, "broken_record"]
    assert "has 1 cells, the header 2" in rows[1]["error_message"]


def test_a_gzipped_table_cut_short_keeps_what_came_before(tmp_path: Path) -> None:
    lines = "path,caption\n" + "".join(f"{row}.jpg,{row * 7919}\n" for row in range(20_000))
    path = folder(tmp_path, {"t.csv.gz": gzip.compress(lines.encode())[:-5000]}) / "t.csv.gz"
    rows = read(path)
    assert errors(rows)[-1] == "broken_archive"
    assert set(errors(rows)[:-2]) == {None}
    assert 1000 < len(rows) < 20_000


def test_tables_of_one_job_share_a_schema(tmp_path: Path) -> None:
    files = {"a.jsonl": jsonl({"path": "a", "n": 1}), "b.jsonl": jsonl({"path": "b", "n": 0.5, "m": "x"})}
    rows = read(folder(tmp_path, files))
    assert column(rows, "pass:n") == [1.0, 0.5]
    assert column(rows, "pass:m") == [None, "x"]


def test_fields_new_to_an_extended_plan_are_counted(tmp_path: Path) -> None:
    folder(tmp_path, {"a.jsonl": jsonl({"path": "a", "n": 1})})
    first = plan(tmp_path)
    folder(tmp_path, {"b.jsonl": jsonl({"path": "b", "n": "one", "m": 2})})
    known = [piece.slice.source.uri for piece in first.pieces]
    more = plan_sources(InputRequest((str(tmp_path),)), 10, schema=first.schema, known=known)
    assert [piece.slice.source.uri for piece in more.pieces] == [f"{tmp_path}/b.jsonl"]
    notices: Counter[str] = Counter()
    assert errors(read_plan(more, notices=notices)) == ["schema_mismatch"]
    assert list(notices) == ["column 'm', which the plan has not, was left out"]


def test_a_header_alone_is_a_table_without_rows(tmp_path: Path) -> None:
    assert read(folder(tmp_path, {"t.csv": "path,caption\n"}) / "t.csv") == []


@pytest.mark.parametrize("data", ["", "\n\n"])
def test_an_empty_table_without_columns_is_wrong_usage(tmp_path: Path, data: str) -> None:
    for name in ("t.csv", "t.jsonl"):
        with pytest.raises(UsageError, match=r"is empty$"):
            plan(folder(tmp_path, {name: data}) / name)


def test_a_header_that_names_a_column_twice_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two columns have the same name"):
        plan(folder(tmp_path, {"t.csv": "path,a,a\nx,1,2\n"}) / "t.csv")


def test_a_very_long_line_is_one_rejected_row(tmp_path: Path) -> None:
    lines = ['{"path": "a"}', '{"path": "' + "x" * (17 << 20) + '"}', '{"path": "b"}']
    rows = read(folder(tmp_path, {"t.jsonl": "\n".join(lines)}) / "t.jsonl")
    assert errors(rows) == [None, "broken_record", None]
