"""Output folders load by their names in the libraries that people use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.written import written_names
from tests.support.images import encoded, scene
from tests.support.make_inputs import folder, table
from tests.support.run_command import Outcome, decode, encode, run

KEYS = [f"k{number}" for number in range(5)]
CAPTIONS = ["a cat", "a dog", None, "drei über", "e, f"]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Outcome:
    """Four rows and one that is rejected, in three shards."""
    home = tmp_path_factory.mktemp("tokens")
    images = [encoded(scene(48, 32 + number), "PNG") for number in range(4)] + [b"no image"]
    folder(home / "in", {"0.parquet": table({"key": KEYS, "image": images, "caption": CAPTIONS})})
    result = encode(home / "in", home / "tokens", tiny_model, "--rows_per_shard", "2")
    assert result.code == 0, result.err
    assert len(result.rejected()) == 1
    return result


def load(output: str | Path, home: Path, *words: str, **options: Any) -> Any:
    datasets = pytest.importorskip("datasets")  # not beside the lowest versions: see setup.py
    datasets.disable_progress_bars()
    return datasets.load_dataset(str(output), *words, cache_dir=str(home / "cache"), **options)["train"]


def test_a_folder_of_tokens_is_a_dataset(tokens: Outcome, tmp_path: Path) -> None:
    loaded = load(tokens.output, tmp_path)

    assert loaded.to_list() == tokens.rows()
    assert loaded["caption"][:] == CAPTIONS[:4]
    assert loaded.features["encoding"].feature.dtype == "uint16"


def test_duckdb_reads_the_folder_of_rows(tokens: Outcome) -> None:
    duckdb = pytest.importorskip("duckdb")
    found = duckdb.sql(f"select key, len(encoding) from '{tokens.output}/data/*.parquet' order by key").fetchall()
    assert found == [(key, 64) for key in KEYS[:4]]


def decoded(tokens: Outcome, output: Path, model: Path, layout: str) -> Outcome:
    result = decode(f"{tokens.output}/data", output, model, "--image_layout", layout)
    assert result.code == 0, result.err
    return result


@pytest.fixture
def pixels(tokens: Outcome, tmp_path: Path, tiny_model: Path) -> list[np.ndarray]:
    """The decoded images, as files hold them."""
    result = decoded(tokens, tmp_path / "files", tiny_model, "files")
    return [np.asarray(Image.open(tmp_path / "files" / row["image_path"])) for row in result.rows()]


def test_images_in_tables_are_images(
    tokens: Outcome, pixels: list[np.ndarray], tmp_path: Path, tiny_model: Path
) -> None:
    result = decoded(tokens, tmp_path / "out", tiny_model, "parquet")

    loaded = load(result.output, tmp_path)

    assert type(loaded.features["image"]).__name__ == "Image"
    assert loaded["key"][:] == KEYS[:4]
    for row, expected in zip(loaded, pixels, strict=True):
        np.testing.assert_array_equal(np.asarray(row["image"]), expected)


def test_tars_are_a_dataset_of_images_and_rows(
    tokens: Outcome, pixels: list[np.ndarray], tmp_path: Path, tiny_model: Path
) -> None:
    result = decoded(tokens, tmp_path / "out", tiny_model, "webdataset")

    loaded = load(result.output, tmp_path)

    assert [row["key"] for row in loaded["json"][:]] == KEYS[:4]
    for row, expected in zip(loaded, pixels, strict=True):
        np.testing.assert_array_equal(np.asarray(row["png"]), expected)


def test_image_folders_are_a_dataset_of_rows_and_one_of_images(
    tokens: Outcome, tmp_path: Path, tiny_model: Path
) -> None:
    result = decoded(tokens, tmp_path / "out", tiny_model, "files")

    rows = load(result.output, tmp_path)
    images = load("imagefolder", tmp_path, data_dir=f"{result.output}/images")

    assert rows.to_list() == result.rows()
    for row, image in zip(rows, images, strict=True):
        expected = Image.open(Path(result.output, row["image_path"]))
        np.testing.assert_array_equal(np.asarray(image["image"]), np.asarray(expected))


def test_a_readme_of_the_user_stays_and_is_told_of(tokens: Outcome, tmp_path: Path, tiny_model: Path) -> None:
    folder(tmp_path / "out", {"README.md": b"mine"})

    result = decoded(tokens, tmp_path / "out", tiny_model, "webdataset")
    assert "README.md stays as it is" in result.err
    assert "data_files: tars/*.tar" in result.err
    again = decode(f"{tokens.output}/data", tmp_path / "out", tiny_model, "--overwrite")

    assert again.code == 0, again.err
    assert (tmp_path / "out" / "README.md").read_bytes() == b"mine"


def test_the_card_belongs_to_the_output(tokens: Outcome, tmp_path: Path, tiny_model: Path) -> None:
    output = tmp_path / "out"
    decoded(tokens, output, tiny_model, "webdataset")
    card = output / "README.md"
    assert "data_files: tars/*.tar" in card.read_text()
    assert str(card) in written_names(str(output))
    assert run("verify", str(output)).code == 0

    for flags in ((), ("--image_layout", "parquet")):
        result = decode(f"{tokens.output}/data", output, tiny_model, "--overwrite", *flags)
        assert result.code == 0, result.err
        assert "README.md" not in result.err
        assert "data_files: data/*.parquet" in card.read_text()


def test_a_job_that_failed_has_no_card(tmp_path: Path, tiny_model: Path) -> None:
    folder(tmp_path / "in", {"0.parquet": table({"key": ["a"], "image": [b"no image"], "caption": ["x"]})})
    result = encode(tmp_path / "in", tmp_path / "out", tiny_model)
    assert result.code == 1
    assert not (tmp_path / "out" / "README.md").exists()
