"""Parquet as people write it: untyped strings, columns without a type, folders that hold a column."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.support.images import encoded, scene
from tests.support.read_inputs import column, errors, plan, read
from tests.support.run_command import encode
from transforms.errors import UsageError
from transforms.inputs.formats import large_pages, page_codecs, parquet_rows, read_slices

IMAGES = [encoded(scene(40, 24 + number), "JPEG") for number in range(3)]


def parquet(path: Path, columns: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.binary(5), pa.dictionary(pa.int8(), pa.binary())], ids=str
)
@pytest.mark.parametrize("name", ["caption", "TEXT"])
def test_binary_captions_are_text(tmp_path: Path, kind: pa.DataType, name: str) -> None:
    captions = pa.array([b"a cat", b"a dog"])
    captions = captions.dictionary_encode() if pa.types.is_dictionary(kind) else captions.cast(kind)
    path = parquet(tmp_path / "a.parquet", {"image": IMAGES[:2], name: captions})
    assert column(read(path), "caption") == ["a cat", "a dog"]


def test_binary_captions_in_lists_are_text(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"image": IMAGES[:2], "captions": [[b"a", "é".encode()], None]})
    assert column(read(path), "caption") == [["a", "é"], None]


def test_binary_that_is_no_utf8_rejects_its_row_alone(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "a.parquet", {"image": IMAGES, "caption": [b"a", b"\xff", None], "key": [b"k", b"l", b"\xfe"]}
    )
    rows = read(path)
    assert errors(rows) == [None, "broken_record", "broken_record"]
    assert (column(rows, "caption"), rows[0]["key"]) == (["a", None, None], "k")
    assert rows[1]["error_message"] == "caption is not UTF-8"


def test_files_of_one_job_may_differ_in_how_they_mark_text(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", {"image": IMAGES[:1], "caption": ["a"], "note": ["x"]})
    parquet(tmp_path / "b.parquet", {"image": IMAGES[:1], "caption": [b"b"], "note": [b"y"]})
    rows = read(tmp_path)
    assert (column(rows, "caption"), column(rows, "pass:note")) == (["a", "b"], ["x", "y"])


def test_captions_and_keys_that_are_all_null_are_none(tmp_path: Path, tiny_model: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"image": IMAGES[:2], "caption": pa.nulls(2), "key": pa.nulls(2)})
    done = encode(path, tmp_path / "out", tiny_model)
    assert done.code == 0, done.err
    assert [(row["key"], row["caption"]) for row in done.rows()] == [("a-000000000", None), ("a-000000001", None)]
    assert done.total("missing_captions") == 2


def test_a_gap_in_the_keys_makes_no_floats_of_them(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"key": [1.0, 2.0, None], "image": IMAGES})
    assert column(read(path), "key") == ["1", "2", "a-000000002"]


@pytest.mark.parametrize("numbers", [[7, 8, None], [7.0, 8.0, None]])
def test_captions_that_are_whole_numbers_are_their_digits(tmp_path: Path, numbers: list[float | None]) -> None:
    path = parquet(tmp_path / "a.parquet", {"image": IMAGES, "caption": numbers})
    assert column(read(path), "caption") == ["7", "8", None]


def test_a_caption_that_is_a_fraction_rejects_its_row_alone(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"image": IMAGES, "caption": [1.0, 2.5, float("nan")]})
    rows = read(path)
    assert column(rows, "caption") == ["1", None, None]
    assert column(rows, "error_message") == [None, "the caption is 2.5, the plan fixed captions as a string", None]


def test_a_column_of_numbers_is_the_caption_only_if_it_is_called_so(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"image": IMAGES[:1], "title": [3]})
    assert (column(read(path), "caption"), column(read(path), "pass:title")) == ([None], [3])
    assert column(read(path, caption_column="title"), "caption") == ["3"]


def test_a_type_that_is_no_caption_is_told_as_such(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"image": IMAGES[:1], "caption": [True]})
    with pytest.raises(UsageError, match="column caption is bool, and the caption is a string or a list of strings"):
        plan(path, written=("caption", "key"))


def test_codes_and_images_in_dictionaries_are_read(tmp_path: Path) -> None:
    codes = pa.array([b"\1\0\2\0", b"\3\0\4\0", b"\1\0\2\0"]).dictionary_encode()
    path = parquet(tmp_path / "codes.parquet", {"encoding": codes})
    assert column(read(path, kind="codes"), "codes") == [[1, 2], [3, 4], [1, 2]]
    path = parquet(tmp_path / "images.parquet", {"image": pa.array(IMAGES).dictionary_encode()})
    assert column(read(path), "image") == IMAGES


def test_captions_in_lists_of_dictionaries_are_read(tmp_path: Path) -> None:
    words = pa.array(["x", "y", "x"]).dictionary_encode()
    path = parquet(
        tmp_path / "a.parquet", {"image": IMAGES[:2], "captions": pa.ListArray.from_arrays([0, 2, 3], words)}
    )
    assert column(read(path), "caption") == [["x", "y"], ["x"]]


def test_names_of_folders_give_columns_as_in_pyarrow(tmp_path: Path) -> None:
    folders = ["lang=en/n=1/b=x%20y", "lang=de/n=02/b=__HIVE_DEFAULT_PARTITION__", "lang=3/n=-7"]
    for number, name in enumerate(folders):
        parquet(tmp_path / name / "part-0.parquet", {"image": IMAGES[:1], "number": [number]})
    expected = ds.dataset(tmp_path, partitioning="hive").to_table(columns=["number", "lang", "n", "b"])
    planned = plan(tmp_path)
    assert planned.schema.passthrough.equals(expected.schema)
    names = [f"pass:{name}" for name in expected.schema.names]
    found = [[row[name] for name in names] for row in read(tmp_path)]
    assert sorted(found) == sorted(list(row.values()) for row in expected.to_pylist())
    assert {row["key"] for row in read(tmp_path)} == {f"{name}/part-0-000000000" for name in folders}


def test_a_column_goes_before_the_name_of_a_folder(tmp_path: Path) -> None:
    parquet(tmp_path / "ds/lang=en/a.parquet", {"image": IMAGES[:1], "lang": ["fr"]})
    assert column(read(tmp_path / "ds"), "pass:lang") == ["fr"]


def test_the_name_of_a_folder_is_no_key_unless_it_is_named(tmp_path: Path) -> None:
    for number in range(2):
        parquet(tmp_path / f"id=n{number}/key={number}/a.parquet", {"image": IMAGES[:1]})
    rows = read(tmp_path, written=("key",))
    assert column(rows, "key") == ["id=n0/key=0/a-000000000", "id=n1/key=1/a-000000000"]
    assert [(row["pass:id"], row["pass:input_key"]) for row in rows] == [("n0", 0), ("n1", 1)]
    assert column(read(tmp_path, key_column="id", written=("key",)), "key") == ["n0", "n1"]


def test_base64_in_a_column_of_strings_is_the_image(tmp_path: Path, tiny_model: Path) -> None:
    texts = [base64.b64encode(data).decode() for data in IMAGES]
    texts[1] = "data:image/jpeg;base64," + texts[1]
    texts[2] = texts[2][:-200] + "!" * 9000
    path = parquet(tmp_path / "a.parquet", {"image": texts})
    done, same = encode(path, tmp_path / "out", tiny_model), parquet(tmp_path / "b/a.parquet", {"image": IMAGES[:2]})
    done.check_nothing_lost()
    expected = encode(same, tmp_path / "same", tiny_model).rows()
    assert [row["encoding"] for row in done.rows()] == [row["encoding"] for row in expected]
    assert [row["error"] for row in done.rejected()] == ["not_an_image"]
    assert len(done.rejected()[0]["message"]) < 300


def test_rows_of_very_many_captions_come_a_few_at_a_time(tmp_path: Path) -> None:
    """All are equal, so that the file says nothing of their memory."""
    count, rows = 300_000, 8
    words = pa.DictionaryArray.from_arrays(np.zeros(count * rows, np.int32), pa.array(["a cat"])).dictionary_decode()
    offsets = pa.array(range(0, count * rows + 1, count), pa.int32())
    captions = pa.ListArray.from_arrays(offsets, words)
    path = parquet(tmp_path / "a.parquet", {"image": [b"x"] * rows, "captions": captions})
    planned = plan(path)
    sizes = [batch.num_rows for batch in read_slices([piece.slice for piece in planned.pieces], planned.schema)]
    assert sizes == [1] * rows


def noise(number: int) -> bytes:
    size = 50 + number * 37 % 3000
    return np.random.default_rng(number % 150).bytes(size)  # some of them repeat


LAYOUTS = [
    {"compression": codec, "use_dictionary": dictionary, "data_page_version": version, "write_batch_size": batch}
    for codec in ("none", "snappy", "gzip", "zstd", "brotli", "lz4")
    for dictionary, version, batch in ((True, "1.0", 1024), (True, "2.0", 64), (False, "1.0", 64), (False, "2.0", 1024))
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "-".join(map(str, layout.values())))
@pytest.mark.parametrize("kind", ["bytes", "struct", "alone"])
def test_large_pages_are_read_as_arrow_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: dict[str, Any], kind: str
) -> None:
    images: list[Any] = [None if number % 7 == 3 else noise(number) for number in range(400)]
    column = images
    if kind == "struct":
        cells = [{"bytes": data, "path": f"{number}.jpg"} for number, data in enumerate(images)]
        column = [None if number % 11 == 5 else cell for number, cell in enumerate(cells)]
    columns = {"image": column} | ({} if kind == "alone" else {"caption": list(map(str, range(400)))})
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=150, dictionary_pagesize_limit=40_000, **layout)
    expected = read(path, rows_per_shard=64)
    read_large: list[str] = []
    whole = large_pages.LargeColumn.values
    monkeypatch.setattr(large_pages, "LARGE", 10_000)
    monkeypatch.setattr(parquet_rows, "LARGE", 10_000)
    monkeypatch.setattr(
        large_pages.LargeColumn, "values", lambda self, *rows: read_large.append("") or whole(self, *rows)
    )
    monkeypatch.setattr(parquet_rows._Reader, "_rows_of", only_other_columns(parquet_rows._Reader._rows_of))
    assert read(path, rows_per_shard=64) == expected
    assert len(read_large) >= 7


def flat(size: int) -> bytes:
    """As of a drawing: areas of a colour, a few details."""
    rng = np.random.default_rng(size)
    pixels = np.repeat(rng.integers(0, 256, (size // 300 + 1, 3), np.uint8), 100, axis=0)
    pixels[rng.integers(0, len(pixels), len(pixels) // 50)] = 7
    return pixels.tobytes()[:size]


NAMES = {"LZ4": "lz4_raw"}
CONTENTS = [b"", b"x", bytes(3_000_000), flat(2_500_000), noise(1) * 9000, np.random.default_rng(0).bytes(2_300_000)]


@pytest.mark.parametrize("chunk", [64, 1 << 20])
@pytest.mark.parametrize("content", CONTENTS, ids=["none", "one", "zeros", "flat", "repeated", "noise"])
@pytest.mark.parametrize("codec", ["SNAPPY", "LZ4", "BROTLI", "ZSTD"])
def test_pages_are_decompressed_a_part_at_a_time(
    content: bytes, codec: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_codecs, "CHUNK", chunk)
    parts: list[bytes] = []
    page_codecs.UNPACK[codec](
        io.BytesIO(pa.compress(content, NAMES.get(codec, codec.lower()), asbytes=True)).read, parts.append
    )
    assert b"".join(parts) == content
    assert max(map(len, parts), default=0) <= 3 << 20


def only_other_columns(rows_of: Any) -> Any:
    """`_rows_of`, for columns other than the bytes of images."""

    def checked(self: Any, group: int, low: int, high: int, names: list[str], size: int) -> Any:
        assert low >= high or "image" not in names, "Arrow reads the large pages"
        return rows_of(self, group, low, high, names, size)

    return checked


@pytest.mark.parametrize("damage", ["header", "content"])
def test_a_damaged_large_page_is_what_arrow_says_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": list(map(noise, range(100)))}), path, compression="snappy", row_group_size=50)
    data = bytearray(path.read_bytes())
    at = pq.ParquetFile(path).metadata.row_group(1).column(0).dictionary_page_offset
    data[at + (2 if damage == "header" else 60)] ^= 0xFF
    path.write_bytes(data)
    expected = read(path)
    monkeypatch.setattr(large_pages, "LARGE", 10_000)
    monkeypatch.setattr(parquet_rows, "LARGE", 10_000)
    found = read(path)
    assert [row["image"] for row in found[:50]] == [row["image"] for row in expected[:50]]
    assert len(found) == 100


@pytest.mark.parametrize("passing", [False, True])
def test_a_null_among_lists_of_a_fixed_size_is_told_with_the_cure(tmp_path: Path, passing: bool) -> None:
    """pyarrow writes it, before 18 not even that, and cannot read it back."""
    lists = pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2))
    others = {"codes": [[1, 2]] * 3, "embedding": lists} if passing else {"codes": lists}
    try:
        path = parquet(tmp_path / "a.parquet", others)
    except pa.ArrowNotImplementedError as error:
        pytest.skip(str(error))
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(path)
    rows = read(path, kind="codes")
    assert errors(rows) == ["broken_archive"] * 3
    for message in column(rows, "error_message"):
        assert "from row 0 on: a null in a column of fixed-size lists" in message
        assert "write the column as plain lists, or without nulls (Expected all lists to be of size=2" in message
