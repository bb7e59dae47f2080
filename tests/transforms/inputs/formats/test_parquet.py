"""Parquet inputs: images as bytes, structs or references; tokens of every width; files that differ or are broken."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.read_inputs import column, errors, passthrough, plan, read, read_plan
from transforms.errors import UsageError
from transforms.inputs.formats import read_slices
from transforms.inputs.formats.parquet import cuts
from transforms.inputs.request import InputSchema


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_images_as_bytes_with_every_other_column_passing_through(tmp_path: Path) -> None:
    columns = {
        "image": [b"one", b"two"],
        "caption": ["a", None],
        "key": ["k1", "k2"],
        "score": pa.array([0.5, None], pa.float32()),
        "when": pa.array([1, 2], pa.timestamp("ms")),
        "tags": pa.array([["a"], []], pa.list_(pa.string())),
        "box": pa.array([{"x": 1}, None], pa.struct([("x", pa.int16())])),
        "error_message": ["theirs", None],
    }
    rows = read(write(tmp_path / "a.parquet", columns))
    assert column(rows, "key") == ["k1", "k2"]
    assert column(rows, "image") == [b"one", b"two"]
    assert column(rows, "caption") == ["a", None]
    assert errors(rows) == [None, None]
    planned = plan(tmp_path / "a.parquet")
    (batch,) = read_slices([piece.slice for piece in planned.pieces], planned.schema)
    passed = passthrough(batch)
    expected = pa.table(columns).select(["score", "when", "tags", "box", "error_message"])
    assert pa.Table.from_batches([passed]).equals(expected)


def test_the_image_feature_of_hugging_face_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")  # not beside the lowest versions: see setup.py
    image = Image.new("RGB", (4, 4), "red")
    features = datasets.Features({"picture": datasets.Image(), "text": datasets.Value("string")})
    dataset = datasets.Dataset.from_dict({"picture": [image, None], "text": ["red", "none"]}, features=features)
    dataset.to_parquet(str(tmp_path / "a.parquet"))
    rows = read(tmp_path / "a.parquet")
    assert rows[0]["image"].startswith(b"\x89PNG")
    assert errors(rows) == [None, "missing_image"]
    assert column(rows, "caption") == ["red", "none"]


def test_a_struct_with_a_path_and_no_bytes_is_a_reference(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": b"x", "path": "a.jpg"}, {"bytes": None, "path": "d/b.jpg"}]
    rows = read(write(tmp_path / "a.parquet", {"image": pa.array(cells, kind)}))
    assert column(rows, "image") == [b"x", None]
    assert column(rows, "image_uri") == [None, f"{tmp_path}/d/b.jpg"]


def test_a_column_of_paths_is_resolved_against_the_table(tmp_path: Path) -> None:
    paths = ["d/a.jpg", "/elsewhere/b.jpg", None, "", "../out.jpg", "http://host/c.jpg"]
    rows = read(write(tmp_path / "a.parquet", {"image_path": paths}))
    assert column(rows, "image_uri") == [f"{tmp_path}/d/a.jpg", "/elsewhere/b.jpg", None, None, None, None]
    assert errors(rows) == [None, None, "missing_image", "missing_image", "uri_not_allowed", "uri_not_allowed"]


@pytest.mark.parametrize("root", ["data", "."])
def test_paths_that_vqbeam_wrote_count_from_its_output_folder(tmp_path: Path, root: str) -> None:
    (tmp_path / "out" / "data").mkdir(parents=True)
    table = pa.table({"image_path": ["images/00000/a.png", "../secret.png"]})
    table = table.replace_schema_metadata({"vqbeam": '{"command": "decode", "image_layout": "files"}'})
    pq.write_table(table, tmp_path / "out" / "data" / "00000.parquet")
    rows = read(tmp_path / "out" / root)
    assert column(rows, "image_uri") == [f"{tmp_path}/out/images/00000/a.png", None]
    assert errors(rows) == [None, "uri_not_allowed"]


def test_null_cells_are_rejected_rows(tmp_path: Path) -> None:
    rows = read(write(tmp_path / "a.parquet", {"image": pa.array([None, b"x"], pa.binary()), "key": [None, "k"]}))
    assert errors(rows) == ["missing_image", None]
    assert column(rows, "key") == ["a-000000000", "k"]


def test_keys_may_be_integers_and_repeat(tmp_path: Path) -> None:
    rows = read(write(tmp_path / "a.parquet", {"image": [b"x", b"y"], "id": [7, 7]}))
    assert column(rows, "key") == ["7", "7"]


def test_rows_without_a_key_are_named_by_file_and_row(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "a.parquet", {"image": [b"x", b"y"]})
    rows = read(tmp_path)
    assert column(rows, "key") == ["d/a-000000000", "d/a-000000001"]
    assert rows[1]["uri"] == f"{tmp_path}/d/a.parquet#1"


def test_several_captions_are_kept(tmp_path: Path) -> None:
    rows = read(write(tmp_path / "a.parquet", {"image": [b"x", b"y"], "captions": [["a", "b"], None]}))
    assert column(rows, "caption") == [["a", "b"], None]


def test_types_that_mean_the_same_are_cast_between_files(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": [b"x"], "n": pa.array([1], pa.int64()), "s": ["a"], "t": ["u"]})
    second = {
        "image": pa.array([b"y"], pa.large_binary()),
        "n": pa.array([2], pa.int32()),
        "s": pa.array(["b"], pa.large_string()),
        "t": pa.array(["v"]).dictionary_encode(),
    }
    write(tmp_path / "b.parquet", second)
    rows = read(tmp_path)
    assert errors(rows) == [None, None]
    assert [(row["pass:n"], row["pass:s"], row["pass:t"]) for row in rows] == [(1, "a", "u"), (2, "b", "v")]


def test_a_dictionary_of_strings_passes_as_strings(tmp_path: Path) -> None:
    rows = read(write(tmp_path / "a.parquet", {"image": [b"x"], "t": pa.array(["v"]).dictionary_encode()}))
    assert rows[0]["pass:t"] == "v"


def test_an_integer_too_large_for_the_planned_type_is_rejected_alone(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": [b"x"], "n": pa.array([1], pa.int32())})
    write(tmp_path / "b.parquet", {"image": [b"y"] * 3, "n": pa.array([2, 1 << 40, None], pa.int64())})
    rows = read(tmp_path)
    assert errors(rows) == [None, None, "schema_mismatch", None]
    assert "n is 1099511627776" in rows[2]["error_message"]
    assert column(rows, "pass:n") == [1, 2, None, None]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"image": [b"y", b"z"]}, "no column n"),
        ({"image": [b"y", b"z"], "n": ["1", "2"]}, "column n is string"),
        ({"image": [1, 2], "n": [1, 2]}, "column image is int64"),
    ],
)
def test_every_row_of_a_file_with_another_schema_is_rejected(
    tmp_path: Path, second: dict[str, Any], message: str
) -> None:
    write(tmp_path / "a.parquet", {"image": [b"x"], "n": [1]})
    write(tmp_path / "b.parquet", second)
    rows = read(tmp_path)
    assert errors(rows) == [None, "schema_mismatch", "schema_mismatch"]
    assert message in rows[1]["error_message"]
    assert column(rows, "key")[1:] == ["b-000000000", "b-000000001"]


def test_a_column_that_is_all_null_in_the_first_file_gets_its_type_from_the_next(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": [b"x"], "n": pa.nulls(1)})
    write(tmp_path / "b.parquet", {"image": [b"y"], "n": [5]})
    assert column(read(tmp_path), "pass:n") == [None, 5]


def test_columns_that_later_files_add_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": [b"x"]})
    write(tmp_path / "b.parquet", {"image": [b"y"], "new": [1]})
    notices: Counter[str] = Counter()
    read_plan(plan(tmp_path), notices=notices)
    assert dict(notices) == {"column new, which the first file has not, was left out": 1}


def test_an_empty_table_has_no_rows(tmp_path: Path) -> None:
    columns = {"image": pa.array([], pa.binary()), "n": pa.array([], pa.int8())}
    assert read(write(tmp_path / "a.parquet", columns)) == []


def test_an_empty_first_file_does_not_hide_the_next(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": pa.array([], pa.binary())})
    write(tmp_path / "b.parquet", {"image": [b"x"] * 5})
    assert len(read(tmp_path, rows_per_shard=2)) == 5


def test_a_file_that_is_no_parquet_is_one_rejected_row(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": [b"x"]})
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "c.parquet").write_bytes(b"")
    assert errors(read(tmp_path)) == [None, "broken_archive", "broken_archive"]


def test_nothing_but_broken_files_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UsageError, match=r"b\.parquet: this is no readable Parquet file"):
        plan(tmp_path)


def test_a_corrupt_page_rejects_the_rows_from_there_on(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = [generator.bytes(400) for _ in range(100)]
    path = write(tmp_path / "a.parquet", {"image": images}, row_group_size=10, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    position = data.find(images[55])
    assert position > 0, "random bytes are stored as they are"
    data[position - 2000 : position + 2000] = bytes(4000)
    path.write_bytes(data)
    rows = read(path)
    assert len(rows) == 100
    assert errors(rows)[:50] == [None] * 50
    assert set(errors(rows)[60:]) == {"broken_archive"}
    assert column(rows, "key") == [f"a-{row:09d}" for row in range(100)]


@pytest.mark.parametrize(
    ("groups", "rows_per_shard", "expected"),
    [
        ((10, 10, 10), 20, [(0, 20), (20, 30)]),
        ((10, 10, 10), 100, [(0, 30)]),
        ((10, 10, 10), 7, [(0, 5), (5, 10), (10, 15), (15, 20), (20, 25), (25, 30)]),
        ((100,), 30, [(0, 25), (25, 50), (50, 75), (75, 100)]),
        ((), 10, []),
        ((0, 5, 0), 10, [(0, 5)]),
    ],
)
def test_row_groups_are_kept_whole_where_they_fit(
    groups: tuple[int, ...], rows_per_shard: int, expected: list[tuple[int, int]]
) -> None:
    assert cuts(groups, rows_per_shard) == expected


CODES = [[1, 2, 3, 4], [5, 6, 7, 300]]


@pytest.mark.parametrize(
    "cells",
    [
        pa.array(CODES, pa.list_(pa.int64())),
        pa.array(CODES, pa.list_(pa.uint16(), 4)),
        pa.array(CODES, pa.list_(pa.int32(), 4)),
        pa.array(CODES, pa.large_list(pa.int16())),
        pa.array([np.array(row, "<i2").tobytes() for row in CODES], pa.binary()),
    ],
    ids=lambda cells: str(cells.type),
)
def test_token_columns_of_every_form(tmp_path: Path, cells: pa.Array) -> None:
    path = write(tmp_path / "a.parquet", {"encoding": cells, "caption": ["a", "b"], "key": ["x", "y"], "n": [1, 2]})
    rows = read(path, kind="codes")
    assert column(rows, "codes") == CODES
    assert [(row["key"], row["caption"], row["pass:n"]) for row in rows] == [("x", "a", 1), ("y", "b", 2)]


def test_bad_token_cells_are_rejected_rows(tmp_path: Path) -> None:
    huge = pa.array([[1], None, [2**63]], pa.list_(pa.uint64()))
    assert errors(read(write(tmp_path / "a.parquet", {"tokens": huge}), kind="codes")) == [
        None, "missing_codes", "code_out_of_range",
    ]  # fmt: skip
    odd = pa.array([b"\1\0", b"\1", None], pa.binary())
    assert errors(read(write(tmp_path / "b.parquet", {"tokens": odd}), kind="codes")) == [
        None, "wrong_code_count", "missing_codes",
    ]  # fmt: skip


def test_the_token_column_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"zz": CODES, "encoding": CODES})
    rows = read(path, kind="codes", code_column="zz")
    assert (rows[0]["codes"], rows[0]["pass:encoding"]) == (CODES[0], CODES[0])
    with pytest.raises(UsageError, match="no column nope"):
        plan(path, kind="codes", code_column="nope")
    with pytest.raises(UsageError, match=r"no column looks like the codes.*n \(int64\)"):
        plan(write(tmp_path / "b.parquet", {"n": [1]}), kind="codes")


def test_the_schema_survives_json(tmp_path: Path) -> None:
    columns = {"image": [b"x"], "n": pa.array([1], pa.int8()), "d": pa.array([None], pa.list_(pa.date32()))}
    schema = plan(write(tmp_path / "a.parquet", columns), rename=(("n", "number"),)).schema
    assert InputSchema.from_json(schema.to_json()) == schema
    assert schema.passthrough.names == ["number", "d"]


def test_text_that_is_no_utf8_rejects_its_row_alone(tmp_path: Path) -> None:
    bad = pa.StringArray.from_buffers(3, pa.py_buffer(np.array([0, 1, 2, 3], "<i4")), pa.py_buffer(b"a\xffc"))
    columns = {"image": [b"1", b"2", b"3"], "caption": bad, "key": bad, "note": bad, "n": [1, 2, 3]}
    rows = read(write(tmp_path / "a.parquet", columns))
    assert errors(rows) == [None, "broken_record", None]
    assert column(rows, "key") == ["a", "a-000000001", "c"]
    assert column(rows, "pass:note") == ["a", None, "c"]
    assert column(rows, "pass:n") == [1, 2, 3]


def test_an_empty_caption_is_none(tmp_path: Path) -> None:
    assert column(read(write(tmp_path / "a.parquet", {"image": [b"x"] * 3, "text": ["", None, "c"]})), "caption") == [
        None, None, "c",
    ]  # fmt: skip


def test_a_null_among_the_codes_rejects_the_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"codes": pa.array([[1, None], [1, 2]], pa.list_(pa.int64()))})
    assert errors(read(path, kind="codes")) == ["missing_codes", None]


def test_columns_of_one_name_are_wrong_usage_first_and_rejected_rows_later(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": [b"x"], "n": [1]})
    double = pa.table([pa.array([b"x"]), pa.array([1]), pa.array([2])], names=["image", "n", "n"])
    pq.write_table(double, tmp_path / "b.parquet")
    assert errors(read(tmp_path)) == [None, "schema_mismatch"]
    with pytest.raises(UsageError, match="several columns called n"):
        plan(tmp_path / "b.parquet")


@pytest.mark.parametrize("kind", [pa.binary(3), pa.large_binary(), pa.binary_view()])
def test_images_in_every_binary_type(tmp_path: Path, kind: pa.DataType) -> None:
    columns = {"image": pa.array([b"abc", None], kind)}
    try:
        path = write(tmp_path / "a.parquet", columns)
    except pa.ArrowNotImplementedError:
        assert pa.types.is_binary_view(kind)
        pytest.skip("pyarrow before 21 writes no views to Parquet")
    rows = read(path)
    assert column(rows, "image") == [b"abc", None]
    assert errors(rows) == [None, "missing_image"]
