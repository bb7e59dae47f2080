"""Folders of images: captions beside them or in the metadata files of Hugging Face's image folders."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.support.make_inputs import folder
from tests.support.read_inputs import column, errors, plan, read, read_plan
from transforms.errors import SourceChanged, UsageError
from transforms.inputs.plan import plan_sources
from transforms.inputs.request import InputRequest


def test_a_tree_of_images_with_texts_beside_some(tmp_path: Path) -> None:
    files = {"a.jpg": b"A", "a.txt": "an a\n", "d/b.PNG": b"B", "d/c.webp": b"", "notes.md": "x", ".hidden/x.jpg": b"x"}
    rows = read(folder(tmp_path, files))
    assert column(rows, "key") == ["a", "d/b", "d/c"]
    assert column(rows, "image") == [b"A", b"B", b""]
    assert column(rows, "caption") == ["an a", None, None]
    assert column(rows, "uri") == [f"{tmp_path}/{name}" for name in ("a.jpg", "d/b.PNG", "d/c.webp")]


def test_json_beside_images_passes_through(tmp_path: Path) -> None:
    files = {"a.jpg": b"A", "a.json": '{"caption": "c", "n": 1}', "b.jpg": b"B", "b.json": "{oops", "c.jpg": b"C"}
    rows = read(folder(tmp_path, files))
    assert column(rows, "pass:n") == [1, None, None]
    assert column(rows, "caption") == ["c", None, None]
    assert errors(rows) == [None, "broken_record", None]


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_metadata_describes_some_images_and_the_others_are_rows_too(tmp_path: Path, name: str) -> None:
    if name.endswith("csv"):
        text = "file_name,text,n\nd/b.jpg,a b,1\ngone.jpg,lost,2\n"
    else:
        records = [
            {"file_name": "d/b.jpg", "text": "a b", "n": "1"},
            {"file_name": "gone.jpg", "text": "lost", "n": "2"},
        ]
        text = "\n".join(json.dumps(record) for record in records)
    files: dict[str, bytes | str] = {"a.jpg": b"A", "a.txt": "an a", "d/b.jpg": b"B", "d/b.txt": "unused", name: text}
    rows = read(folder(tmp_path, files))
    assert column(rows, "key") == ["d/b", "gone", "a"]
    assert column(rows, "caption") == ["a b", "lost", "an a"]
    assert column(rows, "image_uri") == [f"{tmp_path}/d/b.jpg", f"{tmp_path}/gone.jpg", None]
    assert column(rows, "image") == [None, None, b"A"]
    assert column(rows, "pass:n") == ["1", "2", None]


def test_metadata_in_subfolders_names_images_relative_to_itself(tmp_path: Path) -> None:
    files = {
        "train/metadata.csv": "file_name,text\n1.jpg,one\n../test/2.jpg,two\n",
        "train/1.jpg": b"1",
        "test/2.jpg": b"2",
    }
    rows = read(folder(tmp_path, files))
    assert [(row["key"], row["caption"]) for row in rows] == [("train/1", "one"), ("test/2", "two")]


def test_an_image_over_the_limit_is_not_read(tmp_path: Path) -> None:
    rows = read_plan(plan(folder(tmp_path, {"a.jpg": b"x" * 100})), max_bytes=99)
    assert (errors(rows), rows[0]["image"]) == (["image_too_large"], None)


def test_single_images_can_be_named(tmp_path: Path) -> None:
    folder(tmp_path, {"a.jpg": b"A", "a.txt": "unseen", "b.jpg": b"B"})
    rows = read(tmp_path / "b.jpg", tmp_path / "a.jpg")
    assert column(rows, "key") == ["b", "a"]


def test_many_images_keep_their_order(tmp_path: Path) -> None:
    rows = read(folder(tmp_path, {f"{number:04d}.jpg": b"%d" % number for number in range(300)}), rows_per_shard=70)
    assert column(rows, "image") == [b"%d" % number for number in range(300)]


@pytest.mark.parametrize(
    ("name", "change"),
    [("a.jpg", "grown"), ("a.jpg", "gone"), ("t.csv", "grown"), ("t.csv", "gone"), ("t.csv", "rewritten")],
)
def test_a_source_that_changed_since_the_plan_is_noticed(tmp_path: Path, name: str, change: str) -> None:
    path = folder(tmp_path, {name: "path\nx\n"}) / name
    planned = plan(path)
    if change == "gone":
        path.unlink()
    else:
        path.write_text("path\ny\n" + ("more" if change == "grown" else ""))
    with pytest.raises(SourceChanged, match=name):
        read_plan(planned)


def test_an_image_of_equal_size_and_another_time_is_taken_as_it_is_and_told(tmp_path: Path) -> None:
    """Its plan holds no checksum; it is one row, so nothing is mixed."""
    path = folder(tmp_path, {"a.jpg": "old"}) / "a.jpg"
    planned = plan(path)
    path.write_text("new")
    os.utime(path, (1, 1))
    notices: Counter[str] = Counter()
    assert column(read_plan(planned, notices=notices), "image") == [b"new"]
    assert sum(notices.values()) == 1


def test_unknown_json_fields_are_counted_unless_columns_were_chosen(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {f"{number:02d}.jpg": b"x" for number in range(12)}
    files |= {f"{number:02d}.json": '{"a": 1}' if number < 11 else '{"a": 2, "b": 3}' for number in range(12)}
    for columns, expected in ((None, 1), (("a",), 0)):
        notices: Counter[str] = Counter()
        read_plan(plan(folder(tmp_path, files), columns=columns), notices=notices)
        assert sum(notices.values()) == expected


def test_a_code_table_in_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has images \(a\.jpg\) where tables of codes are wanted \(parquet\)"):
        plan(folder(tmp_path, {"a.jpg": b"x"}), kind="codes")


def test_a_folder_of_images_has_no_column_of_images(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"each image file in .* is an image: there is no column") as refused:
        plan(folder(tmp_path, {"a.jpg": b"A"}), image_column="nope")
    assert refused.value.option == "image_column"


def test_extending_a_described_folder_adds_only_what_is_new(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"metadata.csv": "file_name,text\na.jpg,a\n", "a.jpg": b"A", "b.jpg": b"B"}
    first = plan(folder(tmp_path, files))
    folder(tmp_path, {"c.jpg": b"C"})
    known = [piece.slice.source.uri for piece in first.pieces]
    more = plan_sources(InputRequest((str(tmp_path),)), 10, schema=first.schema, known=known)
    assert column(read_plan(more), "key") == ["c"]
