"""Prompts from files of every kind and from the command line: rows, keys, options, and shards that change nothing."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.make_inputs import folder
from tests.support.read_inputs import column, errors, plan, read, read_plan
from transforms.errors import UsageError
from transforms.inputs.formats import count_rows, read_slices
from transforms.inputs.plan import make_shards, plan_sources
from transforms.inputs.request import InputRequest, InputSchema
from transforms.ledger.folder import OutputFolder
from transforms.ledger.plan import Plan, store_segment
from transforms.ledger.stored_shards import StoredShards
from transforms.work.generate import WRITTEN

OPTIONS = ("seed", "images", "guidance_scale", "temperature", "top_k", "top_p")
NO_OPTIONS = dict.fromkeys(OPTIONS)


def prompts(*patterns: Any, **request: Any) -> list[dict[str, Any]]:
    return read(*patterns, kind="prompts", **request)


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def options(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in OPTIONS}


def test_every_line_of_a_txt_is_a_row(tmp_path: Path) -> None:
    data = "\ufeffa red apple\r\n\r\n  two spaces \n\ttab\x01\x85 é\u2028ü\n  \n\nlast, no end".encode()
    rows = prompts(folder(tmp_path, {"p.txt": data}) / "p.txt")
    assert column(rows, "caption") == [
        *("a red apple", None, "  two spaces ", "\ttab\x01\x85 é\u2028ü"),
        *("  ", None, "last, no end"),
    ]
    assert column(rows, "key") == [f"p-{row:09d}" for row in range(7)]
    assert rows[3]["uri"] == f"{tmp_path}/p.txt#3"
    assert errors(rows) == [None] * 7
    assert options(rows[0]) == NO_OPTIONS


def test_a_gzipped_txt_reads_as_the_plain_one(tmp_path: Path) -> None:
    plain = folder(tmp_path / "a", {"p.txt": "one\n\ntwo\n"}) / "p.txt"
    packed = folder(tmp_path / "b", {"p.txt.gz": gzip.compress(plain.read_bytes())}) / "p.txt.gz"
    keep = ("key", "caption")
    assert [{name: row[name] for name in keep} for row in prompts(packed)] == [
        {name: row[name] for name in keep} for row in prompts(plain)
    ]


def csv_file(path: Path, delimiter: str = ",") -> None:
    lines = [["prompt", "seed", "images", "top_p", "note"], ["red", "7", "3", "0.5", "x"], ["blue", "", " ", "", ""]]
    path.write_text("".join(delimiter.join(line) + "\n" for line in lines))


def tsv_file(path: Path) -> None:
    csv_file(path, "\t")


def jsonl_file(path: Path) -> None:
    records = [{"prompt": "red", "seed": 7, "images": 3.0, "top_p": 0.5, "note": "x"}, {"prompt": "blue", "note": ""}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def parquet_file(path: Path) -> None:
    columns = {
        "prompt": ["red", "blue"],
        "seed": pa.array([7, None], pa.uint64()),
        "images": pa.array([3.0, None]),
        "top_p": pa.array([Decimal("0.5"), None]),
        "note": ["x", ""],
    }
    write(path, columns)


TABLES = [("p.csv", csv_file), ("p.tsv", tsv_file), ("p.jsonl", jsonl_file), ("p.parquet", parquet_file)]


@pytest.mark.parametrize(("name", "make"), TABLES)
def test_a_table_of_any_kind_gives_the_same_rows(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    make(tmp_path / name)
    rows = prompts(tmp_path / name)
    assert column(rows, "caption") == ["red", "blue"]
    assert column(rows, "key") == ["p-000000000", "p-000000001"]
    assert options(rows[0]) == NO_OPTIONS | {"seed": 7, "images": 3, "top_p": 0.5}
    assert options(rows[1]) == NO_OPTIONS
    assert column(rows, "pass:note") == ["x", ""]
    assert errors(rows) == [None, None]


@pytest.mark.parametrize("name", ["p.csv.gz", "p.jsonl.gz"])
def test_gzipped_tables_are_read(tmp_path: Path, name: str) -> None:
    text = "prompt\nred\n" if "csv" in name else '{"prompt": "red"}\n'
    rows = prompts(folder(tmp_path, {name: gzip.compress(text.encode())}) / name)
    assert [(row["key"], row["caption"]) for row in rows] == [("p-000000000", "red")]


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        (("text", "caption", "prompt"), "prompt"),
        (("text", "caption", "title"), "caption"),
        (("description", "TEXT"), "TEXT"),
    ],
)
def test_the_prompt_is_the_first_of_the_usual_names(tmp_path: Path, columns: tuple[str, ...], wanted: str) -> None:
    path = write(tmp_path / "p.parquet", {name: [f"of {name}"] for name in columns})
    (row,) = prompts(path)
    assert row["caption"] == f"of {wanted}"
    assert {name for name in row if name.startswith("pass:")} == {f"pass:{name}" for name in columns if name != wanted}


def test_the_prompt_column_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", {"caption": ["no"], "wish": ["yes"]})
    assert column(prompts(path, caption_column="wish"), "caption") == ["yes"]


def test_types_of_other_columns_are_kept(tmp_path: Path) -> None:
    columns = {
        "prompt": ["a"],
        "when": pa.array([1], pa.timestamp("ms")),
        "tags": [["x"]],
        "n": pa.array([1], pa.int8()),
    }
    planned = plan(write(tmp_path / "p.parquet", columns), kind="prompts")
    assert planned.schema.passthrough.equals(pa.table(columns).schema.remove(0))


def test_a_key_column_is_used_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", {"prompt": ["a", "b", "c"], "key": ["../x", "", "../x"]})
    assert column(prompts(path), "key") == ["../x", "p-000000001", "../x"]


@pytest.mark.parametrize("name", ["p.txt", "p.parquet"])
def test_keys_made_from_prompts_are_equal_for_equal_prompts(tmp_path: Path, name: str) -> None:
    texts = ["ä cat", "a dog", "", "ä cat"]
    path = tmp_path / name
    if name == "p.txt":
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    else:
        write(path, {"prompt": texts, "id": [1, 2, 3, 4]})
    cat = hashlib.blake2b("ä cat".encode(), digest_size=16).hexdigest()
    dog = hashlib.blake2b(b"a dog", digest_size=16).hexdigest()
    assert column(prompts(path, key_from="prompt"), "key") == [cat, dog, "p-000000002", cat]


def test_a_key_column_and_keys_from_prompts_contradict(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", {"prompt": ["a"], "name": ["b"]})
    with pytest.raises(UsageError, match=r"key_column name and key_from prompt contradict"):
        plan(path, kind="prompts", key_column="name", key_from="prompt")


@pytest.mark.parametrize("name", ["seed", "sample", "rank", "clip_score", "image_path", "encoding", "width", "key"])
def test_a_column_named_as_one_of_the_output_offers_rename(tmp_path: Path, name: str) -> None:
    columns: dict[str, Any] = {"prompt": ["a"], name: [1], "name": ["k"]}
    request: dict[str, Any] = {"key_column": "name", "written": WRITTEN}
    if name == "seed":
        request["columns"] = ("seed",)
    path = write(tmp_path / "p.parquet", columns)
    with pytest.raises(UsageError, match=f"column {name} would be written as {name}.*rename it .{name}=NAME"):
        plan(path, kind="prompts", **request)


def test_an_option_that_is_renamed_only_passes_through(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", {"prompt": ["a"], "seed": ["of sunflowers"], "images": [["x.png"]]})
    (row,) = prompts(path, rename=(("seed", "theirs"), ("images", "files")))
    assert (row["seed"], row["images"], row["pass:theirs"], row["pass:files"]) == (
        None,
        None,
        "of sunflowers",
        ["x.png"],
    )


def test_a_column_may_be_an_option_and_pass_through(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", {"prompt": ["a"], "TOP_K": [9]})
    (row,) = prompts(path, columns=("TOP_K",))
    assert (row["top_k"], row["pass:TOP_K"]) == (9, 9)


def text_of(rows: int) -> str:
    return "".join(f"prompt {row}\r\n" if row % 3 else "\n" for row in range(rows))


@pytest.mark.parametrize("rows_per_shard", [1, 2, 7, 40, 100])
def test_cut_and_whole_reading_give_the_same_rows(tmp_path: Path, rows_per_shard: int) -> None:
    files: dict[str, bytes | str] = {
        "a.txt": text_of(40),
        "b.txt": "\ufeff" + text_of(5),
        "c.txt.gz": gzip.compress(text_of(6).encode()),
    }
    whole = prompts(folder(tmp_path, files))
    assert len(whole) == 51
    planned = plan(tmp_path, rows_per_shard=rows_per_shard, kind="prompts")
    assert read_plan(planned, rows_per_shard) == whole
    plain = [piece.rows for piece in planned.pieces if not piece.slice.source.uri.endswith(".gz")]
    assert max(plain) <= rows_per_shard


def test_a_folder_of_images_with_texts_is_still_a_folder_of_images(tmp_path: Path) -> None:
    folder(tmp_path, {"a.jpg": b"x", "a.txt": "of a", "b.jpg": b"y", "b.txt": "of b"})
    assert column(read(tmp_path), "caption") == ["of a", "of b"]
    assert column(prompts(tmp_path), "caption") == ["of a", "of b"]


def test_the_parquet_beside_a_tar_has_prompts_too(tmp_path: Path) -> None:
    folder(tmp_path, {"00000.tar": b"x", "00001.tar": b"x"})
    for name in ("00000", "00001"):
        write(tmp_path / f"{name}.parquet", {"caption": [f"of {name}"]})
    assert column(prompts(tmp_path), "caption") == ["of 00000", "of 00001"]


def given(*texts: str, **request: Any) -> InputRequest:
    return InputRequest((), prompts=texts, kind="prompts", **request)


def test_prompts_of_the_command_line_are_rows_of_the_plan(tmp_path: Path) -> None:
    planned = plan_sources(given("one", "", "three\nlines", "one", "five"), 2)
    rows = read_plan(planned, 2)
    assert column(rows, "caption") == ["one", None, "three\nlines", "one", "five"]
    assert column(rows, "key") == [f"prompt-{row:06d}" for row in range(5)]
    assert rows[2]["uri"] == "--prompt#2"
    shards = make_shards(planned.pieces, 2)
    assert [len(shard.slices[0].texts) for shard in shards] == [2, 2, 1]
    stored = store_segment(str(tmp_path), Plan("generate", {}, {}, planned.schema.to_json()), shards)
    assert (stored.segments[0].rows, stored.segments[0].sources) == (5, 1)
    loaded = list(StoredShards(str(tmp_path), stored))
    assert loaded == list(shards)
    schema = InputSchema.from_json(json.loads(json.dumps(stored.schema)))
    assert schema == planned.schema
    again = [row for shard in pickle.loads(pickle.dumps(loaded)) for row in rows_of(shard.slices, schema)]
    assert again == rows


def rows_of(slices: Any, schema: InputSchema) -> list[dict[str, Any]]:
    return [row for batch in read_slices(slices, schema) for row in batch.to_pylist()]


def test_prompts_of_the_command_line_may_be_keyed_by_their_text() -> None:
    rows = read_plan(plan_sources(given("one", "two", "one", key_from="prompt"), 10))
    assert rows[0]["key"] == rows[2]["key"] == hashlib.blake2b(b"one", digest_size=16).hexdigest()
    assert rows[1]["key"] != rows[0]["key"]


def test_a_limit_cuts_the_prompts_of_a_slice() -> None:
    planned = plan_sources(given("one", "two", "three"), 10)
    (piece,) = planned.pieces
    assert count_rows(piece.slice, 100, planned.schema) == 3
    assert column(rows_of([replace(piece.slice, stop=2)], InputSchema("prompts")), "key") == [
        "prompt-000000",
        "prompt-000001",
    ]


def test_an_extended_plan_has_the_prompts_of_the_command_line_once() -> None:
    first = plan_sources(given("one"), 10)
    more = plan_sources(given("one"), 10, schema=first.schema, known=[piece.slice.source.uri for piece in first.pieces])
    assert not more.pieces


def test_the_schema_of_an_earlier_version_is_read() -> None:
    values = InputSchema("images", image="jpg", sidecars=("txt",)).to_json()
    del values["options"], values["key_from"]
    assert InputSchema.from_json(values) == InputSchema("images", image="jpg", sidecars=("txt",))


def test_a_stored_plan_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    planned = plan(folder(tmp_path / "in", {"p.txt": "a\nb\n"}), kind="prompts")
    shards = make_shards(planned.pieces, 10)
    stored = store_segment(str(tmp_path), Plan("generate", {}, {}, planned.schema.to_json()), shards)
    path = Path(OutputFolder(str(tmp_path)).shards(0))
    pq.write_table(pq.read_table(path).drop_columns(["texts"]), path)
    assert list(StoredShards(str(tmp_path), stored)) == list(shards)
