"""Captions that say nothing are null in every format, and texts beside images are whole or refused."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.make_inputs import folder, tar_of
from tests.support.read_inputs import column, errors, plan, read, read_plan
from transforms.inputs.values import MAX_TEXT_BYTES

CAPTIONS = ["two\nlines", "  ", "", "\u3000\t\n", "last"]
WANTED = ["two\nlines", None, None, None, "last"]


def test_blank_captions_are_null_in_every_format(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(len(CAPTIONS))]
    pairs = list(zip(names, CAPTIONS, strict=True))
    files: dict[str, bytes | str] = {f"files/{name}": b"x" for name in names}
    files |= {f"files/{name[0]}.txt": text for name, text in pairs}
    files["json.tar"] = tar_of([m for n, t in pairs for m in ((n, b"x"), (f"{n[0]}.json", json.dumps({"caption": t})))])
    files["txt.tar"] = tar_of([m for n, t in pairs for m in ((n, b"x"), (f"{n[0]}.txt", t))])
    files["a.csv"] = "image,caption\n" + "".join(f'files/{name},"{text}"\n' for name, text in pairs)
    files["a.jsonl"] = "".join(json.dumps({"image": f"files/{name}", "caption": text}) + "\n" for name, text in pairs)
    folder(tmp_path, files)
    pq.write_table(pa.table({"image": [b"x"] * 5, "caption": CAPTIONS}), tmp_path / "a.parquet")
    for name in ("files", "json.tar", "txt.tar", "a.csv", "a.jsonl", "a.parquet"):
        rows = read(tmp_path / name)
        assert (column(rows, "caption"), errors(rows)) == (WANTED, [None] * 5), name


def test_lists_of_blank_captions_are_null(tmp_path: Path) -> None:
    captions = [["a", " "], [" ", None], [], None]
    pq.write_table(pa.table({"image": [b"x"] * 4, "captions": captions}), tmp_path / "a.parquet")
    assert column(read(tmp_path / "a.parquet"), "caption") == [["a", " "], None, None, None]


@pytest.mark.parametrize("ending", ["txt", "json"])
def test_texts_beside_images_are_never_cut(tmp_path: Path, ending: str) -> None:
    over = MAX_TEXT_BYTES + 1
    large = b"a" * over if ending == "txt" else b'{"a": "%s"}' % (b"a" * over)
    members: list[tuple[str, bytes | str]] = [
        ("a.jpg", b"x"), (f"a.{ending}", b"{}"), ("b.jpg", b"x"), (f"b.{ending}", large)
    ]  # fmt: skip
    folder(tmp_path, {"a.tar": tar_of(members)})
    folder(tmp_path / "files", dict(members))
    for name in ("a.tar", "files"):
        rows = read(tmp_path / name)
        assert errors(rows) == [None, "broken_record"], name
        assert f"{ending} has" in rows[1]["error_message"]
        assert rows[1]["caption"] is None


def test_a_field_of_json_files_that_is_null_at_first_keeps_its_numbers(tmp_path: Path) -> None:
    values = [None] * 100 + [0.25, 3]
    files: dict[str, bytes | str] = {f"{number:03d}.jpg": b"x" for number in range(len(values))}
    files |= {f"{number:03d}.json": json.dumps({"late": value}) for number, value in enumerate(values)}
    assert column(read(folder(tmp_path, files)), "pass:late") == values


def test_keys_of_images_that_differ_in_their_ending_are_kept(tmp_path: Path) -> None:
    assert column(read(folder(tmp_path, {"a.jpg": b"1", "a.png": b"2"})), "key") == ["a", "a"]


def test_a_fraction_among_integers_of_tables_does_not_cost_the_image(tmp_path: Path) -> None:
    """A first file of integers fixes the type; in a second one a value has a fraction, and one is missing."""
    for number, values in enumerate(([1, 2], [3.0, 0.5, None])):
        count = len(values)
        pq.write_table(pa.table({"image": [b"x"] * count, "n": values}), tmp_path / f"{number}.parquet")
    notices: Counter[str] = Counter()
    rows = read_plan(plan(tmp_path / "*.parquet"), notices=notices)
    assert (column(rows, "pass:n"), errors(rows)) == ([1, 2, 3, None, None], [None] * 5)
    assert dict(notices) == {"'n' is a number that does not fit int64, the planned type; null was written": 1}
    folder(tmp_path, {"a.jsonl": '{"image": "x.jpg", "n": 1}\n'})
    first = plan(tmp_path / "a.jsonl").schema
    folder(tmp_path, {"a.jsonl": '{"image": "x.jpg", "n": 2.0}\n{"image": "x.jpg", "n": 0.5}\n'})
    later = replace(plan(tmp_path / "a.jsonl"), schema=first)
    rows = read_plan(later, notices=notices)
    assert (column(rows, "pass:n"), errors(rows)) == ([2, None], [None] * 2)
    rows = read_plan(replace(later, schema=replace(first, reading=1)))
    assert errors(rows) == [None, "schema_mismatch"]
