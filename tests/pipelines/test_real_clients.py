"""What encode and decode write is read by the tools that people use, as whole folders, after rows were rejected."""

from __future__ import annotations

import datetime
import decimal
import io
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from models.vqgan.checkpoint import open_checkpoint
from tests.support.images import encoded, scene
from tests.support.make_inputs import GOOD, image_table
from tests.support.run_command import Outcome, decode, encode
from transforms.image_options import ImageOptions
from transforms.images import decode_image

WHEN = datetime.datetime(2024, 2, 29, 12, 30, 1, 250_000, tzinfo=datetime.timezone.utc)
PASSED = {
    "whole": pa.array([1, None, 3, 4, 5], pa.int8()),
    "share": pa.array([0.5, 1.5, None, 2.5, 3.5], pa.float32()),
    "flag": pa.array([True, False, None, True, False]),
    "when": pa.array([WHEN, None, WHEN, WHEN, WHEN], pa.timestamp("us", tz="UTC")),
    "day": pa.array([WHEN.date()] * 5, pa.date32()),
    "price": pa.array([decimal.Decimal("12.34")] * 5, pa.decimal128(9, 2)),
    "raw": pa.array([b"\0\1", None, b"", b"x", b"y"]),
    "tags": pa.array([["a", None], [], None, ["b"], ["c"]], pa.list_(pa.string())),
    "box": pa.array([[0, 1, 2, 3]] * 5, pa.list_(pa.int16(), 4)),
    "location": pa.array(
        [{"lat": 1.5, "names": ["x"]}] * 4 + [None], pa.struct({"lat": pa.float64(), "names": pa.list_(pa.string())})
    ),
    "kind": pa.array(["cat", "dog", "cat", None, "dog"]).dictionary_encode(),
    "nothing": pa.nulls(5),
}
KEYS = ["r0", "r1", "r3", "r0", "r1", "r3"]  # of both files, without the bad third and fifth rows
TAKEN = [0, 1, 3]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Outcome:
    """Two files of five rows, in each of which two images are bad, as tokens in two shards."""
    folder = tmp_path_factory.mktemp("readers")
    (folder / "in").mkdir()
    for name in ("x", "y"):
        images = [GOOD, encoded(scene(20, 30), "PNG"), b"", encoded(scene(16, 16), "WEBP", lossless=True), GOOD[:99]]
        (folder / "in" / f"{name}.parquet").write_bytes(image_table(images, **PASSED))
    result = encode(folder / "in", folder / "out", tiny_model, "--rows_per_shard", "5")
    assert result.code == 0, result.err
    assert result.by_reason("errors") == {"empty_image": 2, "broken_image": 2}
    assert len(result.files("data/*")) == 2
    return result


@pytest.fixture
def data(tokens: Outcome) -> Path:
    return Path(tokens.output, "data")


def codes_of(path: Path) -> np.ndarray:
    """All codes of a folder, as our own tables store them."""
    tables = [pq.read_table(file) for file in sorted(path.glob("*.parquet"))]
    return np.concatenate([np.stack(table.column("encoding").to_pylist()) for table in tables])


def test_pandas_reads_the_folder(data: Path) -> None:
    frame = pd.read_parquet(data)
    assert frame["key"].tolist() == KEYS
    assert frame["caption"].tolist() == [f"c {key}" for key in KEYS]
    assert np.array_equal(np.stack(frame["encoding"].tolist()), codes_of(data))
    assert frame["original_width"].tolist() == [40, 20, 16] * 2
    assert frame["when"][0] == pd.Timestamp(WHEN)


def test_pyarrow_reads_the_folder_as_one_dataset(data: Path) -> None:
    dataset = pyarrow.dataset.dataset(data)
    assert dataset.count_rows() == len(KEYS)
    assert dataset.schema.field("encoding").type == pa.list_(pa.uint16(), 64)
    few = dataset.to_table(filter=pyarrow.dataset.field("original_width") < 20, columns=["key"])
    assert few.column("key").to_pylist() == ["r3", "r3"]


def test_duckdb_queries_the_folder(data: Path) -> None:
    query = f"select key, encoding[1], len(encoding), tags from '{data}/*.parquet' order by filename, file_row_number"
    rows = duckdb.sql(query).fetchall()
    assert [row[0] for row in rows] == KEYS
    assert [row[1] for row in rows] == codes_of(data)[:, 0].tolist()
    assert {row[2] for row in rows} == {64}
    assert rows[0][3] == ["a", None]


def test_hugging_face_datasets_loads_the_folder(data: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")  # not beside the lowest versions: see setup.py
    loaded = datasets.load_dataset("parquet", data_files=f"{data}/*.parquet", cache_dir=str(tmp_path), split="train")
    assert loaded["key"][:] == KEYS
    assert np.array_equal(np.stack(loaded["encoding"][:]), codes_of(data))
    assert loaded.features["encoding"].length == 64
    streamed = datasets.load_dataset("parquet", data_dir=str(data), split="train", streaming=True)
    assert [row["key"] for row in streamed] == KEYS


def test_columns_that_pass_through_keep_types_and_values(data: Path) -> None:
    for file in data.glob("*.parquet"):
        table = pq.read_table(file)
        for name, column in PASSED.items():
            plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
            assert table.schema.field(name).type == plain.type, name
            assert table.column(name).to_pylist() == plain.take(pa.array(TAKEN)).to_pylist(), name


def test_errors_are_a_table_as_well(tokens: Outcome) -> None:
    frame = pd.read_parquet(Path(tokens.output, "_vqbeam", "errors"))
    assert frame.columns.tolist() == ["key", "uri", "stage", "error", "message"]
    assert sorted(frame["key"]) == ["r2", "r2", "r4", "r4"]


def reconstructions(model: Path) -> np.ndarray:
    """uint8 [3, 16, 16, 3]: the good images of a file through the model, without vqbeam's pipelines."""
    tokenizer = open_checkpoint(model).load(backend="torch", device="cpu", dtype="float32", batch_size=4, threads=1)
    sources = (GOOD, encoded(scene(20, 30), "PNG"), encoded(scene(16, 16), "WEBP", lossless=True))
    return tokenizer.decode(
        tokenizer.encode(np.stack([decode_image(data, ImageOptions(16)).pixels for data in sources]))
    )


def pixels(data: bytes | Image.Image) -> np.ndarray:
    return np.asarray(data if isinstance(data, Image.Image) else Image.open(io.BytesIO(data)))


def painted(tokens: Outcome, layout: str, output: Path, model: Path, *flags: str) -> Outcome:
    layouts = ("--image_layout", layout, "--rows_per_shard", "3", *flags)
    result = decode(f"{tokens.output}/data", output, model, *layouts)
    assert result.code == 0, result.err
    return result


def test_images_in_files_are_what_the_model_reconstructs(tokens: Outcome, tmp_path: Path, tiny_model: Path) -> None:
    result = painted(tokens, "files", tmp_path, tiny_model)
    expected = reconstructions(tiny_model)
    rows = pd.read_parquet(tmp_path / "data")
    assert rows["key"].tolist() == KEYS
    for number, path in enumerate(rows["image_path"]):
        assert np.array_equal(pixels(result.read(path)), expected[number % 3])


def test_webdataset_reads_the_tars(tokens: Outcome, tmp_path: Path, tiny_model: Path) -> None:
    painted(tokens, "webdataset", tmp_path, tiny_model)
    expected = reconstructions(tiny_model)
    reader = webdataset.WebDataset(f"{tmp_path}/tars/{{00000..00001}}.tar", shardshuffle=False).decode("rgb8")
    found = list(reader)
    assert [sample["json"]["key"] for sample in found] == KEYS
    assert [sample["json"]["caption"] for sample in found] == [f"c {key}" for key in KEYS]
    for number, sample in enumerate(found):
        assert np.array_equal(sample["png"], expected[number % 3])
    assert found[0]["json"]["price"] == "12.34"


def test_hugging_face_datasets_loads_the_tars(tokens: Outcome, tmp_path: Path, tiny_model: Path) -> None:
    datasets = pytest.importorskip("datasets")  # not beside the lowest versions: see setup.py
    painted(tokens, "webdataset", tmp_path / "out", tiny_model, "--columns", "whole")
    loaded = datasets.load_dataset(
        "webdataset", data_files=f"{tmp_path}/out/tars/*.tar", cache_dir=str(tmp_path / "cache"), split="train"
    )
    expected = reconstructions(tiny_model)
    assert [row["json"]["key"] for row in loaded] == KEYS
    assert all(np.array_equal(pixels(row["png"]), expected[number % 3]) for number, row in enumerate(loaded))


def test_hugging_face_datasets_decodes_images_in_parquet(tokens: Outcome, tmp_path: Path, tiny_model: Path) -> None:
    datasets = pytest.importorskip("datasets")  # not beside the lowest versions: see setup.py
    painted(tokens, "parquet", tmp_path / "out", tiny_model)
    loaded = datasets.load_dataset(
        "parquet", data_files=f"{tmp_path}/out/data/*.parquet", cache_dir=str(tmp_path / "cache"), split="train"
    ).cast_column("image", datasets.Image())
    expected = reconstructions(tiny_model)
    assert loaded["key"][:] == KEYS
    assert all(np.array_equal(pixels(row["image"]), expected[number % 3]) for number, row in enumerate(loaded))


def test_images_in_parquet_can_be_encoded_again(tokens: Outcome, tmp_path: Path, tiny_model: Path) -> None:
    """What decode writes is an input of encode: the loop closes."""
    painted(tokens, "parquet", tmp_path / "images", tiny_model)
    result = encode(tmp_path / "images" / "data", tmp_path / "again", tiny_model)
    assert result.code == 0, result.err
    assert [row["key"] for row in result.rows()] == KEYS
